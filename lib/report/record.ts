import { appendFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { labHome } from '../settings.ts'

/** One thing that happened in a run; a line of its `events.jsonl`. */
export interface RunEvent {
  kind:
    | 'run'
    | 'case'
    | 'step'
    | 'boot'
    | 'power'
    | 'reset'
    | 'fault'
    | 'upgrade'
    | 'work'
    | 'check'
    | 'oracle'
    | 'say'
    | 'event'
  name: string
  /** The VM that it happened to. */
  host?: string
  case?: string
  /** A span's two ends; the end names its beginning in `of`. Without it a moment. */
  phase?: 'begin' | 'end'
  of?: number
  [more: string]: unknown
}

/** Records an event and gives its number, by which a span's end names its beginning. */
export type Note = (event: RunEvent) => number

export interface Recorded extends RunEvent {
  id: number
  /** ISO 8601. */
  at: string
  /** Seconds since the run began. */
  t: number
}

export interface RunRecord {
  id: string
  dir: string
  note: Note
}

const runsDir = (): string => join(labHome(), 'runs')

/**
 * Begins the record of a run: `LAB_HOME/runs/<id>/events.jsonl`, one JSON object a line, each
 * appended by one write, so that a crash costs no line but the one that was being written.
 * @param name the family's, for the id
 */
export function openRecord(name: string): RunRecord {
  privateDirectory(labHome())
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '')
  let id = `${stamp}-${name}`
  for (let count = 2; existsSync(join(runsDir(), id)); count++) id = `${stamp}-${name}-${count}`
  const dir = join(runsDir(), id)
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const from = performance.now()
  let last = 0
  const note: Note = (event) => {
    last += 1
    const t = Math.round(performance.now() - from) / 1000
    const line = { id: last, at: new Date().toISOString(), t, ...event }
    appendFileSync(join(dir, 'events.jsonl'), `${JSON.stringify(line)}\n`, { mode: 0o600 })
    return last
  }
  return { id, dir, note }
}

/** The events of a run; a last line that a crash cut short is left out. */
export function readEvents(dir: string): Recorded[] {
  const text = readFileSync(join(dir, 'events.jsonl'), 'utf8')
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  return whole
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Recorded)
}

/** Deletes the oldest records but `keep`, and the remotes that belonged to them. */
export function pruneRuns(keep = 20): void {
  const dir = runsDir()
  if (!existsSync(dir)) return
  const ids = readdirSync(dir).toSorted()
  for (const id of ids.slice(0, Math.max(0, ids.length - keep))) {
    rmSync(join(dir, id), { recursive: true, force: true })
    rmSync(join(labHome(), 'srv', '.worlds', id), { recursive: true, force: true })
  }
}

import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { lock, type Lock } from '../lock.ts'
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
  /** Never fails: what a full disk does not take is kept in memory, and written once it does. */
  note: Note
  /** Everything that was noted. */
  events: Recorded[]
  /**
   * Gives back the room that the record holds for its reports, so that these can be written when a run has
   * filled the disk, and writes what could not be written before.
   */
  settle: () => void
}

/** Bytes: the report of all cases, with evidence and a screenshot of several that failed. */
const spareBytes = 8 * 1024 ** 2

const runsDir = (): string => join(labHome(), 'runs')

/**
 * Begins the record of a run: `LAB_HOME/runs/<id>/events.jsonl`, one JSON object a line, each
 * appended by one write, so that a crash costs no line but the one that was being written.
 * @param name the family's, for the id
 */
export function openRecord(name: string): RunRecord {
  privateDirectory(labHome())
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '')
  mkdirSync(runsDir(), { recursive: true, mode: 0o700 })
  let id = `${stamp}-${name}`
  // to look first would give two that begin at once the same
  for (let count = 2; !made(join(runsDir(), id)); count++) id = `${stamp}-${name}-${count}`
  return recordIn(join(runsDir(), id), [])
}

/**
 * Goes on with the record of a run that was cut short: what had begun and never ended, ends where its events do, and
 * what comes now comes after them. Nobody else may have the record in hand (`holdRecord`).
 */
export function reopenRecord(dir: string): RunRecord {
  const before = readEvents(dir)
  const record = recordIn(dir, before)
  const ended = new Set(before.map((one) => one.of))
  for (const { id, kind, name, host, hosts, phase } of before) {
    if (phase !== 'begin' || ended.has(id) || kind === 'run') continue
    record.note({ kind, name, host, hosts, phase: 'end', of: id, state: 'cut short' })
  }
  return record
}

/** @throws Failure where another process is at this run */
export const holdRecord = (dir: string): Promise<Lock> =>
  lock(join(dir, '.lock'), `carry on \`${dir}\``)

function recordIn(dir: string, events: Recorded[]): RunRecord {
  const file = join(dir, 'events.jsonl')
  const spare = join(dir, '.spare')
  writeFileSync(spare, Buffer.alloc(spareBytes), { mode: 0o600 })
  const from = performance.now() - 1000 * (events.at(-1)?.t ?? 0)
  let waiting = ''
  // a last line that was cut short is not among the events, and would spoil the next one
  let written = wholeLines(file).length
  if (existsSync(file)) truncateSync(file, written)
  const write = (): void => {
    try {
      appendFileSync(file, waiting, { mode: 0o600 })
      written += Buffer.byteLength(waiting)
      waiting = ''
    } catch {
      // half a line would spoil the next one
      if (existsSync(file)) truncateSync(file, written)
    }
  }
  const note: Note = (event) => {
    const t = Math.round(performance.now() - from) / 1000
    events.push({ id: events.length + 1, at: new Date().toISOString(), t, ...event })
    waiting += `${JSON.stringify(events.at(-1))}\n`
    write()
    return events.length
  }
  const settle = (): void => {
    rmSync(spare, { force: true })
    write()
  }
  return { id: basename(dir), dir, note, events, settle }
}

/** The lines of a file that end as one. */
function wholeLines(file: string): Buffer {
  const bytes = existsSync(file) ? readFileSync(file) : Buffer.alloc(0)
  return bytes.subarray(0, bytes.lastIndexOf('\n') + 1)
}

/** Makes a directory, unless somebody has. */
function made(dir: string): boolean {
  try {
    mkdirSync(dir, { mode: 0o700 })
    return true
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
    return false
  }
}

/** The events of a run; a last line that a crash cut short is left out. */
export function readEvents(dir: string): Recorded[] {
  return wholeLines(join(dir, 'events.jsonl'))
    .toString()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Recorded)
}

/**
 * Deletes the oldest records but `keep`, and the remotes that belonged to them.
 * @param own id of the run that has just ended: it stays, also where the clock makes it the oldest
 */
export function pruneRuns(own: string, keep = 20): void {
  const dir = runsDir()
  if (!existsSync(dir)) return
  const others = readdirSync(dir)
    .filter((id) => id !== own)
    .toSorted()
  for (const id of others.slice(0, Math.max(0, others.length + 1 - keep))) {
    rmSync(join(dir, id), { recursive: true, force: true })
    rmSync(join(labHome(), 'srv', '.worlds', id), { recursive: true, force: true })
  }
}

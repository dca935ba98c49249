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
  /** The begin or end of a span; the end names its begin in `of`. Unset for a single moment. */
  phase?: 'begin' | 'end'
  of?: number
  [more: string]: unknown
}

/** Records an event and returns its id, by which a span's end names its begin. */
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
  /** Never fails: events that a full disk does not take are kept in memory and written once there is room. */
  note: Note
  /** All events so far. */
  events: Recorded[]
  /**
   * Frees the disk space that is reserved for the reports, so that they can be written even if a run has filled
   * the disk, and writes the events that could not be written before.
   */
  settle: () => void
}

/** Reserved bytes: enough for the report of all cases, with evidence and screenshots of several failures. */
const spareBytes = 8 * 1024 ** 2

const runsDir = (): string => join(labHome(), 'runs')

/**
 * Begins the record of a run: `LAB_HOME/runs/<id>/events.jsonl`, one JSON object a line, each
 * appended by one write, so that a crash costs only the line that was being written.
 * @param name the family's name, for the id
 */
export function openRecord(name: string): RunRecord {
  privateDirectory(labHome())
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, '')
  mkdirSync(runsDir(), { recursive: true, mode: 0o700 })
  let id = `${stamp}-${name}`
  // looking first would give the same id to two runs that begin at once
  for (let count = 2; !made(join(runsDir(), id)); count++) id = `${stamp}-${name}-${count}`
  return recordIn(join(runsDir(), id), [])
}

/**
 * Continues the record of a run that was cut short: spans that never ended are ended at the last event, and new events
 * follow. The caller must hold the record's lock (`holdRecord`).
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

/** Locks a record. @throws Failure if another process is carrying on this run */
export const holdRecord = (dir: string): Promise<Lock> =>
  lock(join(dir, '.lock'), `carry on \`${dir}\``)

function recordIn(dir: string, events: Recorded[]): RunRecord {
  const file = join(dir, 'events.jsonl')
  const spare = join(dir, '.spare')
  writeFileSync(spare, Buffer.alloc(spareBytes), { mode: 0o600 })
  const from = performance.now() - 1000 * (events.at(-1)?.t ?? 0)
  let waiting = ''
  // a last line that was cut short is not among the events, and would corrupt the next one
  let written = wholeLines(file).length
  if (existsSync(file)) truncateSync(file, written)
  const write = (): void => {
    try {
      appendFileSync(file, waiting, { mode: 0o600 })
      written += Buffer.byteLength(waiting)
      waiting = ''
    } catch {
      // half a line would corrupt the next one
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

/** The complete lines of a file: all up to its last newline. */
function wholeLines(file: string): Buffer {
  const bytes = existsSync(file) ? readFileSync(file) : Buffer.alloc(0)
  return bytes.subarray(0, bytes.lastIndexOf('\n') + 1)
}

/** Makes a directory. @returns false if it already exists */
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
 * Deletes all but the newest `keep` records, and the remotes that belonged to the deleted ones.
 * @param own id of the run that has just ended; it is kept even if the clock makes it the oldest
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

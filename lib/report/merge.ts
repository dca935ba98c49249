import {
  accessSync,
  cpSync,
  existsSync,
  lstatSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { makeDirectory, whyNot } from '../directory.ts'
import { Failure, usage } from '../failure.ts'
import { isPlan, isRecorded, isResult } from './shape.ts'
import type { Plan } from './plan.ts'
import { readEvents, type Recorded } from './record.ts'
import { complete, nameOf, notRun, worst, type CaseResult } from './result.ts'
import { shardName } from './shard.ts'

/** The record of a run on disk; it may come from another machine. */
export interface Part {
  dir: string
  plan: Plan
  /** Results of its cases; fewer than planned if the run was cut short. */
  results: CaseResult[]
  events: Recorded[]
}

/** Several runs merged into one. */
export interface Merged {
  plan: Plan
  results: CaseResult[]
  events: Recorded[]
  /** What a reader needs to know about how the parts fit together, one line each. */
  notes: string[]
  /** What the lab could not do after the cases of a part. */
  troubles: Failure[]
  /** Seconds of each case that passed. */
  durations: Record<string, number>
}

/**
 * Reads the records in directories: each directory is a record, or holds some at any depth.
 * @throws Failure (usage) for a directory without a record, or with one that cannot be read
 */
export function readParts(dirs: string[]): Part[] {
  const found = dirs.flatMap((dir) => {
    const records = recordsIn(dir)
    if (records.length > 0) return records
    throw usage(
      `Cannot find a run in \`${dir}\``,
      'Name the directory that a run prints at its end: the one with run.json',
    )
  })
  // the same record may be named twice, directly and by a directory above it
  return [...new Set(found)].map(readPart)
}

function recordsIn(dir: string): string[] {
  // an incomplete record, such as a partial copy from another machine, still counts as one
  const its = ['run.json', 'results.json', 'events.jsonl']
  // a VM's directory has events, too
  if (existsSync(join(dir, 'vm.json'))) return []
  if (its.some((name) => existsSync(join(dir, name)))) return [realpathSync(dir)]
  if (!statSync(dir, { throwIfNoEntry: false })?.isDirectory()) return []
  const below = readdirSync(dir, { withFileTypes: true }).filter((one) => one.isDirectory())
  return below.flatMap(({ name }) => recordsIn(join(dir, name))).toSorted()
}

/** @throws Failure (usage) for a record that cannot be read */
export function readPart(dir: string): Part {
  const read = <T>(name: string, how: (path: string) => T): T => {
    try {
      return how(join(dir, name))
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException
      const why = code === 'ENOENT' ? 'it is not there' : message
      throw usage(`Cannot read \`${join(dir, name)}\`: ${why}`)
    }
  }
  const json = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'))
  const plan = read('run.json', json)
  if (!isPlan(plan)) {
    throw usage(`Cannot read \`${join(dir, 'run.json')}\`: it does not say what was asked for`)
  }
  // a run that was killed leaves its events but no results
  const there = existsSync(join(dir, 'results.json'))
  const results = there ? read('results.json', json) : []
  if (!Array.isArray(results) || !results.every(isResult)) {
    throw usage(`Cannot read \`${join(dir, 'results.json')}\`: it is no list of results`)
  }
  // a run writes events before results, so a record with results but no events was copied only in part
  const events = read('events.jsonl', (path) => {
    if (there) accessSync(path)
    return readEvents(dir)
  })
  const odd = events.findIndex((one) => !isRecorded(one))
  if (odd >= 0) {
    throw usage(`Cannot read \`${join(dir, 'events.jsonl')}\`: its line ${odd + 1} is no event`)
  }
  return {
    dir,
    plan,
    // a case that was not run in this part may have run in another
    results: results.filter(({ reason }) => reason !== notRun).map((one) => withEvidence(one, dir)),
    events,
  }
}

/** Looks for evidence in the record's current directory, because the record may have been moved. */
function withEvidence(one: CaseResult, dir: string): CaseResult {
  if (one.evidence === undefined) return one
  const here = join(dir, 'evidence', basename(one.evidence))
  return existsSync(here) ? { ...one, evidence: here } : one
}

/**
 * Copies the evidence of results into a record, which may be all that a CI keeps.
 * @returns the results with their evidence there; where it could not be copied, it stays where it was
 */
export function keepEvidence(results: CaseResult[], record: string): CaseResult[] {
  return results.map((one) => {
    if (one.evidence === undefined || !existsSync(one.evidence)) return one
    const copy = join(record, 'evidence', basename(one.evidence))
    try {
      cpSync(one.evidence, copy, { recursive: true })
      return { ...one, evidence: copy }
    } catch {
      rmSync(copy, { recursive: true, force: true })
      return one
    }
  })
}

/**
 * Merges parts. A requested case that no part ran is an error of the lab, because it proves nothing. If several
 * parts ran a case, its worst result counts.
 * @throws Failure (usage) if the parts differ in flake, dotfiles, subject, hosts or version of the lab
 */
export function merge(parts: Part[]): Merged {
  const [first, ...others] = parts as [Part, ...Part[]]
  for (const other of others) refuseOther(first, other)
  refuseOtherHosts(parts)
  const { plan } = first
  const titleOf = titlesOf(parts)
  const distinct = <T>(of: (part: Part) => T): T[] => [...new Set(parts.map(of))]
  const hosts = [...new Set(parts.flatMap((part) => part.plan.hosts))].toSorted()
  const asked = [...new Set(parts.flatMap((part) => part.plan.asked))]
  const done = parts.flatMap((part) => part.results)
  const missing = asked.filter((name) => !done.some((one) => nameOf(one) === name))
  const results = complete(worstOfEach(done), asked, { ...plan, hosts })
  const passed = results.filter(({ state }) => state === 'passed')
  const seeds = distinct((part) => part.plan.seed)
  const grounds = distinct((part) => part.plan.ground)
  const twice = asked.filter((name) => done.filter((one) => nameOf(one) === name).length > 1)
  const notes = [
    ...(seeds.length > 1 ? [`the parts have different seeds: ${seeds.join(', ')}`] : []),
    ...(grounds.length > 1 ? [`the parts ran on different ground: ${grounds.join('; ')}`] : []),
    ...parts.filter((one) => !one.plan.ended).map((one) => `${titleOf(one)} was cut short`),
    ...missingParts(parts),
    ...(twice.length > 0
      ? [`several parts ran the same cases, of which the worst result counts: ${twice.join(', ')}`]
      : []),
    ...(missing.length > 0 ? [`no part ran ${missing.join(', ')}`] : []),
  ]
  const troubles = parts.flatMap((part) =>
    (part.plan.ended?.troubles ?? []).map((why) => `${titleOf(part)}: ${why}`),
  )
  return {
    plan: {
      ...plan,
      ...{ name: distinct((part) => part.plan.name).join('+'), hosts, asked, cases: asked },
      ...{ ground: grounds.join('; '), shard: undefined, ended: { troubles } },
      lanes: parts.flatMap((part) => vmsOf(part).map((vm) => `${titleOf(part)} ${vm}`)),
    },
    results,
    events: eventsOf(parts, titleOf),
    notes,
    troubles: troubles.map((why) => new Failure(why)),
    durations: Object.fromEntries(
      passed.map((one) => [nameOf(one), Math.round(one.seconds * 10) / 10]),
    ),
  }
}

function refuseOther(first: Part, other: Part): void {
  const apart = difference(first.plan, other.plan)
  if (!apart) return
  throw usage(
    `Cannot merge \`${first.dir}\` and \`${other.dir}\`: they are of different ${apart}`,
    'Results of one do not apply to the other: merge only runs that agree in this',
  )
}

/** The difference between two runs that keeps their results from being combined; undefined if there is none. */
export function difference(one: Plan, other: Plan): string | undefined {
  const same: [what: string, of: (plan: Plan) => string][] = [
    ['flakes, or of different commits of one', ({ flake }) => flake],
    ['dotfiles', ({ dotfiles }) => dotfiles],
    ['subjects', ({ subject }) => subject?.title ?? 'none'],
    ['versions of the lab', ({ lab }) => lab],
  ]
  const [found] = same.filter(([, of]) => of(one) !== of(other))
  return found && `${found[0]} (${found[1](one)} and ${found[1](other)})`
}

/**
 * Refuses parts of different hosts: a case that passed on one pair of a fleet's hosts has not run on another pair. A
 * part that has only cases of one VM lists only the first host.
 */
function refuseOtherHosts(parts: Part[]): void {
  const [most, ...others] = parts.toSorted((a, b) => b.plan.hosts.length - a.plan.hosts.length)
  const { hosts } = most!.plan
  const other = others.find(({ plan }) => !plan.hosts.every((host) => hosts.includes(host)))
  if (!other) return
  throw usage(
    `Cannot merge \`${most!.dir}\` and \`${other.dir}\`: they are of different hosts (${hosts.join(', ')} and ${other.plan.hosts.join(', ')})`,
    'Results on one do not apply to the other: merge only runs of the same pair of hosts',
  )
}

/** The names of the VMs in a part's events. */
const vmsOf = ({ plan }: Part): string[] => plan.lanes ?? plan.hosts

/** The title of each part in messages. Parts with the same title, as when one was run again, add their directory. */
function titlesOf(parts: Part[]): (part: Part) => string {
  const plain = ({ dir, plan: { shard } }: Part): string =>
    shard ? `part ${shardName(shard)}` : basename(dir)
  return (part) => {
    const alike = parts.filter((one) => plain(one) === plain(part))
    if (alike.length === 1) return plain(part)
    return `${plain(part)} (${alike.indexOf(part) + 1}: ${basename(part.dir)})`
  }
}

/** The parts of the same division whose record is missing. */
function missingParts(parts: Part[]): string[] {
  const counts = new Set(parts.flatMap(({ plan }) => plan.shard?.count ?? []))
  return [...counts].flatMap((count) => {
    const there = parts.flatMap(({ plan: { shard } }) =>
      shard?.count === count ? shard.index : [],
    )
    const all = Array.from({ length: count }, (_, at) => at + 1)
    const gone = all.filter((index) => !there.includes(index))
    return gone.map((index) => `part ${index}/${count} is not there`)
  })
}

/** One result for each case: its worst. */
function worstOfEach(results: CaseResult[]): CaseResult[] {
  const names = [...new Set(results.map(nameOf))]
  return names.map((name) => {
    const some = results.filter((one) => nameOf(one) === name)
    return some.find(({ state }) => state === worst(some))!
  })
}

/** All events, as if the parts had begun at the same moment; the names of VMs begin with the title of their part. */
function eventsOf(parts: Part[], titleOf: (part: Part) => string): Recorded[] {
  let before = 0
  const all = parts.flatMap((part) => {
    const from = before
    before += part.events.length
    const called = (vm: string): string => `${titleOf(part)} ${vm}`
    return part.events.map((one): Recorded => {
      // an event without a VM, such as a fault between two, belongs to all VMs of its part
      const hosts = (one['hosts'] as string[] | undefined) ?? vmsOf(part)
      return {
        ...one,
        id: one.id + from,
        ...(one.of === undefined ? {} : { of: one.of + from }),
        ...(one.host === undefined ? { hosts: hosts.map(called) } : { host: called(one.host) }),
      }
    })
  })
  return all.toSorted((a, b) => a.t - b.t)
}

const newOne = 'Name a directory that does not exist yet'

/**
 * Makes the directory that a merge writes into.
 * @throws Failure (usage) if it cannot be made, or is not empty
 */
export function newDirectory(dir: string): string {
  const there = lstatSync(dir, { throwIfNoEntry: false })
  if (there && !statSync(dir, { throwIfNoEntry: false })?.isDirectory())
    throw usage(`Cannot write into \`${dir}\`: it is not a directory`, newOne)
  if (there && readdirSync(dir).length > 0)
    throw usage(`Cannot write into \`${dir}\`: it is not empty`, newOne)
  try {
    makeDirectory(dir, 0o700)
  } catch (cause) {
    throw usage(
      `Cannot make \`${dir}\`: ${whyNot(cause)}`,
      'Name a directory that this user can make',
    )
  }
  return dir
}

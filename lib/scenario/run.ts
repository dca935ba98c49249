import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ensureBaseline, holdVm, type Hold } from './baseline.ts'
import { Exit, Failure, usage, type ExitCode } from '../failure.ts'
import { baseImage, preflight, type Ground } from '../vm/ground.ts'
import { embeddedGuest } from '../nix/guest.ts'
import { chooseHosts } from '../nix/hosts.ts'
import { junit } from '../report/junit.ts'
import { openRecord, pruneRuns, readEvents } from '../report/record.ts'
import type { Changes } from './remote.ts'
import { report, whereTimeWent } from '../report/report.ts'
import { worst, type CaseResult } from '../report/result.ts'
import { defaultLimit, inHand, replayOf, runCase, type Chosen, type Stage } from './case.ts'
import type { Family } from './scenario.ts'
import { runLanes, type Lane, type Step } from '../steps.ts'
import { green, red, table, yellow } from '../table.ts'
import { openWorld, template } from './world.ts'

export interface RunOptions {
  /** What the record is called. */
  name: string
  hosts?: string[]
  cases?: string[]
  seed?: number
  keep?: boolean
  list?: boolean
  json?: boolean
  /** Files on top of the flake, by path: a control's cut. */
  extra?: Changes
}

export interface Ran {
  /** The run's directory. */
  dir: string
  hosts: string[]
  results: CaseResult[]
}

/** Runs the cases of families, prints their table, and gives the exit code by the worst. */
export async function runFamilies(families: Family[], options: RunOptions): Promise<ExitCode> {
  const chosen = choose(families, options.cases)
  const json = Boolean(options.json)
  if (options.list) {
    print(chosen, json)
    return Exit.held
  }
  const embedded = embeddedGuest()
  return summarize(
    'none' in embedded ? skipAll(chosen, options, embedded.none) : await runCases(chosen, options),
    json,
  )
}

const toHaveThem =
  'import nixosModules.{autoUpgrade,goldenGeneration,chezmoiSync} of the lab and offer labConfigurations'

/** A record in which every case is skipped, with the reason. */
function skipAll(chosen: Chosen[], { name, seed = 0, hosts = [] }: RunOptions, why: string): Ran {
  const reason = `${why}; ${toHaveThem}`
  const results = chosen.map(({ family, one }): CaseResult => ({
    family: family.name,
    case: one.name,
    title: one.title,
    hosts,
    state: 'skipped',
    reason,
    seconds: 0,
    seed,
    checks: [],
    oracle: [],
    replay: replayOf({ family, one }, hosts, seed),
  }))
  const record = openRecord(name)
  record.note({ kind: 'run', name, phase: 'end', hosts, seed })
  const page = { id: record.id, hosts, seed, ground: why, results, events: [] }
  writeReports(record, page)
  pruneRuns()
  return { dir: record.dir, hosts, results }
}

/** @throws Failure (usage) for a name that no case has */
export function choose(families: Family[], names: string[] | undefined): Chosen[] {
  const all = families.flatMap((family) => family.cases.map((one) => ({ family, one })))
  const called = ({ family, one }: Chosen, name: string): boolean =>
    one.name === name || `${family.name}/${one.name}` === name
  const unknown = names?.find((name) => !all.some((each) => called(each, name)))
  if (unknown !== undefined) {
    const known = all.map(({ one }) => one.name).join(', ')
    throw usage(`Cannot find a case \`${unknown}\``, `There are ${known || 'none'}`)
  }
  return names?.length ? all.filter((each) => names.some((name) => called(each, name))) : all
}

/** Prepares the VMs and runs the cases: those of one VM side by side, those of two alone. */
export async function runCases(chosen: Chosen[], options: RunOptions): Promise<Ran> {
  const quiet = Boolean(options.json)
  const single = chosen.filter(({ one }) => (one.hosts ?? 1) === 1)
  const double = chosen.filter(({ one }) => one.hosts === 2)
  // a second VM for a single case would only cost a boot
  const needed = double.length > 0 ? 2 : 1
  return withStage(options, needed, single.length > 1 ? 2 : needed, async (stage, hosts) => {
    const lanes = spread(single, hosts).filter((lane) => lane.chosen.length > 0)
    await runLanes(
      lanes.map((lane) => caseLane(lane, stage)),
      quiet,
      true,
    )
    if (double.length > 0) await runLanes([caseLane({ hosts, chosen: double }, stage)], quiet, true)
  })
}

/**
 * Prepares VMs for cases: their baselines, their locks, a record; puts them back after it and writes
 * the report of what there is, whatever happened.
 * @param needed VMs without which it cannot run
 * @param most VMs that it has use for
 */
export async function withStage(
  options: RunOptions,
  needed: number,
  most: number,
  use: (stage: Stage, hosts: string[]) => Promise<void>,
): Promise<Ran> {
  const embedded = embeddedGuest()
  if ('none' in embedded) {
    throw new Failure(`Cannot run scenarios: ${embedded.none}`, { hint: toHaveThem })
  }
  const offered = await chooseHosts(options.hosts, embedded.guest.attribute)
  const hosts = offered.slice(0, most)
  if (hosts.length < needed) {
    throw usage(`Cannot run it on \`${hosts.join(' ')}\` alone`, 'A case needs two VMs: name both')
  }
  const ground: Ground = { ...(await preflight()), ...(await baseImage(() => undefined)) }
  const record = openRecord(options.name)
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31)
  record.note({ kind: 'run', name: options.name, phase: 'begin', hosts, seed })
  const from = await template(hosts, options.extra)
  const stage: Stage = { record, ground, from, seed, prepared: new Map(), results: [] }
  const holds: Hold[] = []
  // Ctrl-C ends the process here and now, and what was found until then is to be read all the same
  const cutShort = (): void => {
    process.exitCode = 130
    record.note({ kind: 'run', name: options.name, phase: 'end', of: 1, reason: 'cut short' })
    write(stage, hosts)
    console.error(`Cut short: ${join(record.dir, 'report.html')}`)
  }
  process.once('exit', cutShort)
  try {
    for (const host of hosts) holds.push(await holdVm(host, options.name))
    await runLanes(
      hosts.map((host, index) => prepareLane(host, stage, holds[index]!)),
      Boolean(options.json),
    )
    await use(stage, hosts)
    if (!options.keep) {
      for (const vm of hosts.map((host) => inHand(host, stage))) {
        await vm.restore()
        vm.retire()
      }
    }
  } finally {
    process.off('exit', cutShort)
    for (const hold of holds) hold.release()
    record.note({ kind: 'run', name: options.name, phase: 'end', of: 1 })
    write(stage, hosts)
    pruneRuns()
  }
  return { dir: record.dir, hosts, results: stage.results }
}

/** The report is written whatever happened, of what there is. */
function write({ record, ground, seed, results }: Stage, hosts: string[]): void {
  const { kind, reason } = ground.accelerator
  const said = `${kind} (${reason.split('\n')[0]}), guest ${ground.guest.kind}`
  writeReports(record, {
    id: record.id,
    hosts,
    seed,
    ground: said,
    results,
    events: readEvents(record.dir),
  })
}

function writeReports({ dir, id }: Stage['record'], page: Parameters<typeof report>[0]): void {
  const { results } = page
  writeFileSync(join(dir, 'report.html'), report(page), { mode: 0o600 })
  writeFileSync(join(dir, 'junit.xml'), junit(results, id), { mode: 0o600 })
  writeFileSync(join(dir, 'results.json'), JSON.stringify(results, null, 2), { mode: 0o600 })
}

export interface LaneOfCases {
  hosts: string[]
  chosen: Chosen[]
}

/**
 * Cases of one VM, dealt out so that the hosts are done at about the same time: the longest first,
 * by the limits that they have, each to the host with the least to do. Their order stays the table's.
 */
export function spread(single: Chosen[], hosts: string[]): LaneOfCases[] {
  const lanes = hosts.map((host) => ({ hosts: [host], chosen: [] as Chosen[], load: 0 }))
  const long = ({ one }: Chosen): number => one.limit ?? defaultLimit
  for (const each of single.toSorted((a, b) => long(b) - long(a))) {
    const lane = lanes.reduce((least, other) => (other.load < least.load ? other : least))
    lane.chosen.push(each)
    lane.load += long(each)
  }
  return lanes.map((lane) => ({
    hosts: lane.hosts,
    chosen: single.filter((each) => lane.chosen.includes(each)),
  }))
}

const prepareLane = (host: string, stage: Stage, hold: Hold): Lane<Stage> => ({
  title: host,
  context: stage,
  steps: [
    {
      title: 'baseline',
      would: () => [`bring ${host} to its baseline`],
      run: async ({ record, from, ground, prepared }, say) => {
        const began = record.note({ kind: 'step', name: 'baseline', host, phase: 'begin' })
        const world = openWorld(`${record.id}/baseline-${host}`, from, [host])
        prepared.set(host, await ensureBaseline(host, world, from, ground, hold, record.note, say))
        record.note({ kind: 'step', name: 'baseline', host, phase: 'end', of: began })
      },
    },
  ],
})

const caseLane = ({ hosts, chosen }: LaneOfCases, stage: Stage): Lane<Stage> => ({
  title: hosts.join(' and '),
  context: stage,
  steps: chosen.map((each): Step<Stage> => ({
    title: `${each.family.name} ${each.one.name}: ${each.one.title}`,
    would: () => [],
    run: async (_, say) => {
      const result = await runCase(each, hosts, stage, say)
      stage.results.push(result)
      if (result.state === 'passed') return
      if (result.state === 'skipped') say(`skipped: ${result.reason}`)
      else throw new Failure(`${result.case}: ${result.reason}`)
    },
  })),
})

function print(chosen: Chosen[], json: boolean): void {
  const rows = chosen.map(({ family, one }) => ({
    family: family.name,
    case: one.name,
    hosts: one.hosts ?? 1,
    title: one.title,
  }))
  if (json) console.log(JSON.stringify(rows, null, 2))
  else {
    const cells = rows.map((row) => [row.family, row.case, String(row.hosts), row.title])
    console.log(table([['family', 'case', 'VMs', ''], ...cells]))
  }
}

/** The last lines: the table, where the time went, the report, and how to run each failure again. */
export function summarize({ dir, results }: Ran, json: boolean): ExitCode {
  const state = worst(results)
  if (json) console.log(JSON.stringify({ run: dir, state, results }, null, 2))
  else {
    const colour = { passed: green, failed: red, error: red, skipped: yellow }
    const rows = results.map((one) => [
      one.family,
      one.case,
      one.hosts.join(' '),
      colour[one.state](one.state === 'passed' ? 'passed' : one.state.toUpperCase()),
      `${one.seconds.toFixed(1)} s`,
      one.reason.split('\n')[0]!,
    ])
    console.log(table([['family', 'case', 'VM', '', 'took', ''], ...rows]))
    const count = (...states: string[]): number =>
      results.filter((one) => states.includes(one.state)).length
    console.log(
      `${count('passed')} passed, ${count('failed', 'error')} failed, ${count('skipped')} skipped`,
    )
    const went = whereTimeWent(readEvents(dir)).filter(([, seconds]) => seconds >= 1)
    if (went.length > 0)
      console.log(`time: ${went.map(([what, s]) => `${what} ${s.toFixed(0)} s`).join(', ')}`)
    console.log(`report: ${join(dir, 'report.html')}`)
    for (const one of results) {
      if (one.state === 'failed' || one.state === 'error') {
        console.log(`${one.family} ${one.case}: evidence ${one.evidence}; replay: ${one.replay}`)
      }
    }
  }
  // a run in which nothing ran has proved nothing
  return {
    passed: Exit.held,
    failed: Exit.checkFailed,
    error: Exit.labCouldNotRun,
    skipped: Exit.labCouldNotRun,
  }[state]
}

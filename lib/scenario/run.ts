import { Exit, Failure, type ExitCode } from '../failure.ts'
import { labSettings, ownUnits } from '../lab-settings.ts'
import { unknown as unknownName } from '../nearest.ts'
import { embeddedGuest } from '../nix/guest.ts'
import { openRecord, pruneRuns } from '../report/record.ts'
import type { CaseResult } from '../report/result.ts'
import { summarize } from '../report/summary.ts'
import { runLanes, type Lane, type Step } from '../steps.ts'
import { table } from '../table.ts'
import { defaultLimit, replayOf, runCase } from './case.ts'
import { durations, remember } from './durations.ts'
import type { Chosen, Family, Stage } from './family.ts'
import { toHaveThem, withStage, writeReports, type Ended, type RunOptions } from './stage.ts'

/** Runs the cases of families, prints their table, and gives the exit code by the worst. */
export async function runFamilies(families: Family[], options: RunOptions): Promise<ExitCode> {
  const chosen = choose(families, options.cases)
  const json = Boolean(options.json)
  if (options.list) {
    print(chosen, json)
    return Exit.held
  }
  const embedded = embeddedGuest()
  const none = 'none' in embedded ? embedded.none : await othersAgents()
  return summarize(none ? skipAll(chosen, options, none) : await runCases(chosen, options), json)
}

/** Why there is nothing to break: what the scenarios ask, and how it ends, is of the lab's own agents. */
async function othersAgents(): Promise<string | undefined> {
  const { units } = await labSettings()
  const other = (['upgrade', 'sync', 'golden'] as const).filter(
    (agent) => units[agent] !== ownUnits[agent],
  )
  if (other.length === 0) return undefined
  const named = other.map((agent) => `\`${units[agent]}\` for \`${ownUnits[agent]}\``).join(', ')
  return `n/a on agents that are not the lab's: lab.toml has ${named}`
}

/** A record in which every case is skipped, with the reason. */
function skipAll(chosen: Chosen[], { name, seed = 0, hosts = [] }: RunOptions, why: string): Ended {
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
  const troubles = writeReports(record, page)
  pruneRuns()
  return { dir: record.dir, hosts, results, troubles }
}

/** @throws Failure (usage) for a name that no case has */
export function choose(families: Family[], names: string[] | undefined): Chosen[] {
  const all = families.flatMap((family) => family.cases.map((one) => ({ family, one })))
  const called = ({ family, one }: Chosen, name: string): boolean =>
    one.name === name || `${family.name}/${one.name}` === name
  const unknown = names?.find((name) => !all.some((each) => called(each, name)))
  if (unknown !== undefined) {
    const whole = all.map(({ family, one }) => `${family.name}/${one.name}`)
    const known = unknown.includes('/') ? whole : all.map(({ one }) => one.name)
    const [only, ...others] = families
    const lists =
      only && others.length === 0 ? `just ${only.name} --list` : 'just gitops-test --list'
    throw unknownName('a case', unknown, known, `${lists} lists all ${all.length}`)
  }
  return names?.length ? all.filter((each) => names.some((name) => called(each, name))) : all
}

/** Prepares the VMs and runs the cases: those of one VM side by side, those of two alone. */
async function runCases(chosen: Chosen[], options: RunOptions): Promise<Ended> {
  const quiet = Boolean(options.json)
  const single = chosen.filter(({ one }) => (one.hosts ?? 1) === 1)
  const double = chosen.filter(({ one }) => one.hosts === 2)
  // a second VM for a single case would only cost a boot
  const needed = double.length > 0 ? 2 : 1
  return withStage(options, needed, single.length > 1 ? 2 : needed, async (stage, hosts) => {
    const lanes = spread(single, hosts).filter((lane) => lane.chosen.length > 0)
    const took = durations()
    const both = double.length > 0 ? [{ hosts, chosen: double, after: true }] : []
    await runLanes(
      [...lanes, ...both].map((lane) => caseLane(lane, stage, took)),
      { quiet, cases: true },
    )
  })
}

export interface LaneOfCases {
  hosts: string[]
  chosen: Chosen[]
  /** Begins when the others have ended. */
  after?: boolean
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

const caseLane = (
  { hosts, chosen, after }: LaneOfCases,
  stage: Stage,
  took: Record<string, number>,
): Lane<Stage> => ({
  title: hosts.join(' and '),
  after,
  context: stage,
  steps: chosen.map((each): Step<Stage> => ({
    title: `${each.family.name} ${each.one.name}: ${each.one.title}`,
    would: () => [],
    usually: took[`${each.family.name}/${each.one.name}`],
    run: async (_, say) => {
      const result = await runCase(each, hosts, stage, say)
      stage.results.push(result)
      if (result.state === 'skipped') return { skipped: result.reason }
      if (result.state !== 'passed') throw new Failure(`${result.case}: ${result.reason}`)
      remember(`${result.family}/${result.case}`, result.seconds)
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

import { Exit, Failure, type ExitCode } from '../failure.ts'
import { labSettings, ownUnits } from '../lab-settings.ts'
import { unknown as unknownName } from '../nearest.ts'
import { chooseGuest, guestStore } from '../nix/guest.ts'
import { evaluate } from '../nix/nix.ts'
import { leftOf } from '../report/cut-short.ts'
import type { Part } from '../report/merge.ts'
import { openRecord, pruneRuns } from '../report/record.ts'
import { labSources, writePlan } from '../report/plan.ts'
import { writeReports } from '../report/reports.ts'
import type { CaseResult } from '../report/result.ts'
import { deal, partEnded, partOf } from '../report/shard.ts'
import { summarize } from '../report/summary.ts'
import { labFlake } from '../settings.ts'
import type { SharedStep } from '../shared-steps.ts'
import { runLanes, type Lane, type Outcome, type Step } from '../steps.ts'
import { table } from '../table.ts'
import { defaultLimit, nothingOf, runCase } from './case.ts'
import { durations, guessed, remember, sharedDurations, type Seconds } from './durations.ts'
import type { Chosen, Family, Stage } from './family.ts'
import { shareOut, type OpenLab } from './labs.ts'
import {
  recordName,
  toHaveThem,
  takeDown,
  withStage,
  type Asked,
  type Ended,
  type RunOptions,
} from './stage.ts'
import { subjectKind } from './subjects.ts'

/** Runs the cases of families, prints their table, and returns the exit code of the worst result. */
export async function runFamilies(families: Family[], options: RunOptions): Promise<ExitCode> {
  subjectKind(options.subject)
  const { resume } = options
  const all = resume ? leftIn(families, resume) : choose(families, options.cases)
  const shared = sharedDurations(options.durations)
  // a case of two VMs takes the time of both
  const chosen = resume ? all : partOf(all, options.shard, (each) => vmSeconds(each, shared))
  const asked: Asked = { asked: all.map(named), cases: chosen.map(named) }
  const json = Boolean(options.json)
  if (options.list) {
    print(chosen, json)
    return Exit.held
  }
  const none = (await noAgents(options)) ?? (await othersAgents(options))
  const ended = none
    ? skipAll(chosen, asked, options, none)
    : await runCases(chosen, asked, { ...options, goOn: 'just gitops-test --resume carries on' })
  const code = summarize(ended, json)
  if (options.shard && !json) console.log(partEnded(options.shard, ended.dir))
  return code
}

/** The cases that an interrupted run has not got to. */
function leftIn(families: Family[], resume: Part): Chosen[] {
  const left = new Set(leftOf(resume))
  return choose(families, undefined).filter((each) => left.has(named(each)))
}

/** Why nothing can be run on the hosts of a flake that does not have the lab's agents; undefined where it can. */
async function noAgents({ subject }: RunOptions): Promise<string | undefined> {
  const guest = chooseGuest()
  const { upgrade } = await labSettings()
  if (guest.kind === 'debian' || subject !== undefined || upgrade.kind !== null) return undefined
  // a flake without any host is reported later, where one is needed
  const any =
    'hosts: hosts == { } || builtins.any (host: host.options ? myModules.services.autoUpgrade || host.config.system.autoUpgrade.enable or false || host.config.services.comin.enable or false) (builtins.attrValues hosts)'
  if (await evaluate<boolean>(labFlake(), guest.attribute, any, guestStore(guest))) return undefined
  return `n/a on the \`nixos\` guest, taken as ${guest.reason}: no host of the flake has the lab's agents`
}

/** Why nothing can be run on other agents: the cases ask for what the lab's own agents do. Undefined where it can. */
async function othersAgents({ subject }: RunOptions): Promise<string | undefined> {
  const { units, upgrade } = await labSettings()
  if (subject !== undefined || upgrade.kind !== null || units.upgrade === 'nixos-upgrade')
    return undefined
  const other = (['upgrade', 'sync', 'golden'] as const).filter(
    (agent) => units[agent] !== ownUnits[agent],
  )
  if (other.length === 0) return undefined
  const named = other.map((agent) => `\`${units[agent]}\` for \`${ownUnits[agent]}\``).join(', ')
  return `n/a on agents that are not the lab's: lab.toml has ${named}, and no [upgrade] that says what to judge`
}

/** A record in which every case is skipped, with the reason. */
function skipAll(
  chosen: Chosen[],
  asked: Asked,
  { name, seed = 0, hosts = [], shard }: RunOptions,
  why: string,
): Ended {
  const reason = `${why}; ${toHaveThem}`
  const results = chosen.map((each): CaseResult => ({
    ...nothingOf(each, hosts, seed),
    ...{ state: 'skipped', reason },
  }))
  const record = openRecord(recordName({ name, shard }))
  record.note({ kind: 'run', name, phase: 'end', hosts, seed })
  const page = { id: record.id, hosts, seed, ground: why, results, events: [] }
  const troubles = writeReports(record, page)
  const nothing = { flake: 'none', dotfiles: 'none', ground: why, lab: labSources() }
  const ended = { troubles: troubles.map(({ message }) => message) }
  writePlan(record.dir, { name, hosts, seed, shard, ...nothing, ...asked, ended })
  pruneRuns(record.id)
  return { dir: record.dir, hosts, results, troubles, ground: why }
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

/** Runs cases for callers that judge the results themselves. */
export const judgeCases = (chosen: Chosen[], options: RunOptions): Promise<Ended> =>
  runCases(chosen, { asked: chosen.map(named), cases: chosen.map(named) }, options)

/**
 * Prepares the VMs and runs the cases: those of one VM side by side, those of two alone. Where there are several labs,
 * each takes the next case as soon as it is free.
 */
async function runCases(chosen: Chosen[], asked: Asked, options: RunOptions): Promise<Ended> {
  const quiet = Boolean(options.json)
  const single = chosen.filter(({ one }) => (one.hosts ?? 1) === 1)
  const double = chosen.filter(({ one }) => one.hosts === 2)
  const vms = chosen.map(({ one }) => one.hosts ?? 1)
  return withStage(options, asked, vms, async (stage, hosts, labs) => {
    const took = durations()
    if (labs.length > 0) {
      const steps = chosen.map((each) => sharedCase(each, hosts, stage, took))
      return shareOut(steps, labs, stage, quiet, ({ each, vms: many }, { message }) => {
        const result = nothingOf(each, hosts.slice(0, many), stage.seed)
        const replay = result.replay + stage.flags
        takeDown(stage, { ...result, replay, state: 'error', reason: `No lab is left: ${message}` })
      })
    }
    const lanes = spread(single, hosts, took).filter((lane) => lane.chosen.length > 0)
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

/** Deals out cases of one VM by their earlier durations, so that the hosts are done at about the same time. */
export const spread = (single: Chosen[], hosts: string[], took: Seconds): LaneOfCases[] =>
  deal(single, hosts.length, (each) => vmSeconds(each, took)).map((chosen, index) => ({
    hosts: [hosts[index]!],
    chosen,
  }))

const named = ({ family, one }: Chosen): string => `${family.name}/${one.name}`

/** Seconds that a case takes, times the number of its VMs. */
export const vmSeconds = (each: Chosen, took: Seconds): number =>
  (took[named(each)] ?? guessed(each.one.limit ?? defaultLimit)) * (each.one.hosts ?? 1)

const titleOf = ({ family, one }: Chosen): string => `${family.name} ${one.name}: ${one.title}`

/** Runs a case in a lab, as a step, and records its result with those of the others. */
async function step(
  each: Chosen,
  hosts: string[],
  { use }: OpenLab,
  stage: Stage,
  say: (line: string) => void,
): Promise<Outcome> {
  const result = await use((own) => runCase(each, hosts, own, say))
  takeDown(stage, result)
  if (result.state === 'skipped') return { skipped: result.reason }
  if (result.state !== 'passed') throw new Failure(`${result.case}: ${result.reason}`)
  remember(named(each), result.seconds)
}

interface SharedCase extends SharedStep<OpenLab> {
  each: Chosen
}

const sharedCase = (each: Chosen, hosts: string[], stage: Stage, took: Seconds): SharedCase => ({
  each,
  title: titleOf(each),
  vms: each.one.hosts ?? 1,
  usually: took[named(each)],
  seconds: vmSeconds(each, took),
  run: (lab, vms, say) => {
    const own = vms.map((vm) => hosts[vm]!)
    return step(each, own, lab, stage, say)
  },
})

const caseLane = (
  { hosts, chosen, after }: LaneOfCases,
  stage: Stage,
  took: Seconds,
): Lane<Stage> => ({
  title: hosts.join(' and '),
  after,
  context: stage,
  steps: chosen.map((each): Step<Stage> => ({
    title: titleOf(each),
    would: () => [],
    usually: took[named(each)],
    run: (_, say) => step(each, hosts, { use: (work) => work(stage) }, stage, say),
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

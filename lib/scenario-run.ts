import { Exit, Failure, explain, usage, type ExitCode } from './failure.ts'
import { ensureBaseline, type Prepared } from './baseline.ts'
import { follow } from './follow.ts'
import { baseImage, preflight, type Ground } from './ground.ts'
import { chooseHosts } from './hosts.ts'
import { chooseGuest } from './guest.ts'
import type { Lock } from './lock.ts'
import { machine, type Machine } from './machine.ts'
import { askOracle, judgeFaults, type FaultState, type OracleRow } from './oracle.ts'
import { seeded } from './random.ts'
import { openRecord, pruneRuns, type Note, type RunRecord } from './record.ts'
import {
  NotApplicable,
  type Case,
  type Ends,
  type Family,
  type Scene,
  type Value,
} from './scenario.ts'
import { runLanes, type Lane, type Step } from './steps.ts'
import { green, red, table, yellow } from './table.ts'
import { files, lockVm } from './vm.ts'
import { openWorld, template, type Template } from './world.ts'
import type { Changes } from './remote.ts'

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

export interface CheckRow {
  name: string
  held: boolean
  expected: string
  found: string
}

export interface CaseResult {
  family: string
  case: string
  title: string
  hosts: string[]
  state: 'passed' | 'failed' | 'skipped' | 'error'
  /** Why it is not passed. */
  reason: string
  seconds: number
  seed: number
  checks: CheckRow[]
  oracle: (OracleRow & { host: string })[]
  /** The command that runs it again. */
  replay: string
  /** Directory of its evidence, where there is some. */
  evidence?: string
}

interface Chosen {
  family: Family
  one: Case
}

/** Runs the cases of families, prints their table, and gives the exit code by the worst. */
export async function runFamilies(families: Family[], options: RunOptions): Promise<ExitCode> {
  const chosen = choose(families, options.cases)
  if (options.list) {
    print(chosen, Boolean(options.json))
    return Exit.held
  }
  const { record, results } = await runCases(chosen, options)
  return summarize(results, record, Boolean(options.json))
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
export async function runCases(
  chosen: Chosen[],
  options: RunOptions,
): Promise<{ record: RunRecord; results: CaseResult[] }> {
  const quiet = Boolean(options.json)
  const named = await chooseHosts(options.hosts, chooseGuest().attribute)
  const needed = Math.max(...chosen.map(({ one }) => one.hosts ?? 1))
  // a second VM for a single case would only cost a boot
  const hosts = named.slice(0, chosen.length === 1 ? needed : 2)
  if (hosts.length < needed) {
    throw usage(`Cannot run a case of two VMs on \`${hosts.join(' ')}\` alone`, 'Name two hosts')
  }
  const record = openRecord(options.name)
  pruneRuns()
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31)
  record.note({ kind: 'run', name: options.name, phase: 'begin', hosts, seed })
  const ground = {} as Ground
  Object.assign(ground, await preflight(), await baseImage(() => undefined))
  const from = await template(named, options.extra)
  const stage: Stage = { record, ground, from, seed, prepared: new Map(), results: [] }
  const locks: Lock[] = []
  try {
    await runLanes(
      hosts.map((host) => prepareLane(host, stage)),
      quiet,
    )
    for (const host of hosts) locks.push(await lockVm(host, options.name))
    const single = chosen.filter(({ one }) => (one.hosts ?? 1) === 1)
    const double = chosen.filter(({ one }) => one.hosts === 2)
    await runLanes(
      spread(single, hosts).map((lane) => caseLane(lane, stage)),
      quiet,
      true,
    )
    await runLanes([caseLane({ hosts, chosen: double }, stage)], quiet, true)
    if (!options.keep) await Promise.all(hosts.map((host) => inHand(host, stage).restore()))
  } finally {
    for (const held of locks) held.release()
    record.note({ kind: 'run', name: options.name, phase: 'end', of: 1 })
  }
  return { record, results: stage.results }
}

interface Stage {
  record: RunRecord
  ground: Ground
  from: Template
  seed: number
  prepared: Map<string, Prepared>
  results: CaseResult[]
}

interface LaneOfCases {
  hosts: string[]
  chosen: Chosen[]
}

/** Cases of one VM, dealt out to the hosts in turn. */
const spread = (single: Chosen[], hosts: string[]): LaneOfCases[] =>
  hosts.map((host, index) => ({
    hosts: [host],
    chosen: single.filter((_, at) => at % hosts.length === index),
  }))

const prepareLane = (host: string, stage: Stage): Lane<Stage> => ({
  title: host,
  context: stage,
  steps: [
    {
      title: 'baseline',
      would: () => [`bring ${host} to its baseline`],
      run: async ({ record, from, ground, prepared }, say) => {
        const began = record.note({ kind: 'step', name: 'baseline', host, phase: 'begin' })
        const world = openWorld(`${record.id}/baseline-${host}`, from, [host])
        prepared.set(host, await ensureBaseline(host, world, from, ground, record.note, say))
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

function inHand(
  host: string,
  stage: Stage,
  say: (line: string) => void = () => {},
  note: Note = stage.record.note,
): Machine {
  const { vm, argv, tag } = stage.prepared.get(host)!
  const { patience } = stage.ground.accelerator
  return machine(vm, { patience, argv, tag, note, say })
}

async function runCase(
  { family, one }: Chosen,
  hosts: string[],
  stage: Stage,
  say: (line: string) => void,
): Promise<CaseResult> {
  const name = `${family.name}/${one.name}`
  const { patience } = stage.ground.accelerator
  const note: Note = (event) => stage.record.note({ case: name, ...event })
  const from = performance.now()
  const began = note({ kind: 'case', name, phase: 'begin', hosts })
  const result: CaseResult = {
    family: family.name,
    case: one.name,
    title: one.title,
    hosts,
    state: 'passed',
    reason: '',
    seconds: 0,
    seed: stage.seed,
    checks: [],
    oracle: [],
    replay: `tsx tasks/${family.name}.ts ${hosts.join(' ')} --case ${one.name} --seed ${stage.seed}`,
  }
  const faults: FaultState[] = []
  const ends = new Map<string, Ends | `/${string}`>()
  const vms = hosts.map((host) => inHand(host, stage, say, note))
  const stop = hosts.map((host) => followPower(host, note))
  try {
    const world = openWorld(`${stage.record.id}/${family.name}-${one.name}`, stage.from, hosts)
    await Promise.all(vms.map((vm) => vm.restore()))
    const check: Scene['check'] = (what, expected, found) => {
      const held = expected instanceof RegExp ? expected.test(String(found)) : expected === found
      const row = { name: what, held, expected: shown(expected), found: shown(found) }
      result.checks.push(row)
      note({ kind: 'check', ...row })
      return held
    }
    const scene: Scene = {
      vm: vms[0]!,
      get other() {
        if (!vms[1]) throw new Error(`case ${name} has one VM only`)
        return vms[1]
      },
      vms,
      world,
      patience,
      seed: stage.seed,
      random: seeded(stage.seed),
      start: (vm) => stage.prepared.get(vm.host)!.toplevel,
      check,
      must: (what, expected, found) => {
        if (check(what, expected, found)) return
        throw new Failure(`${what}: expected ${shown(expected)}, found ${shown(found)}`)
      },
      ends: (vm, toplevel) => void ends.set(vm.host, toplevel),
      fault: (what, host) => announce(faults, what, host, note),
      say,
      event: (what, more) => void note({ kind: 'event', ...more, name: what }),
      skip: (reason) => {
        throw new NotApplicable(reason)
      },
    }
    await within(one.run(scene), (one.limit ?? 180) * patience, `case \`${name}\``)
    result.oracle.push(...judgeFaults(faults).map((row) => ({ host: '', ...row })))
    for (const vm of vms) {
      say(`oracle on ${vm.host}`)
      const wanted = ends.get(vm.host) ?? one.ends ?? 'start'
      const running =
        wanted === 'any'
          ? undefined
          : wanted === 'main'
            ? (await world.host(vm.host, 'main', stage.ground.store)).toplevel
            : wanted.startsWith('/')
              ? wanted
              : scene.start(vm)
      const rows = await askOracle(vm, { running })
      result.oracle.push(...rows.map((row) => ({ host: vm.host, ...row })))
    }
    judgeCase(result)
  } catch (thrown) {
    const known = thrown instanceof Failure
    result.state = thrown instanceof NotApplicable ? 'skipped' : known ? 'failed' : 'error'
    result.reason = known ? thrown.message : explain(name, thrown)
    if (known && thrown.detail.evidence) note({ kind: 'say', name: thrown.detail.evidence })
  } finally {
    for (const one of stop) one()
    for (const vm of vms) vm.disconnect()
    result.seconds = (performance.now() - from) / 1000
    const { state, reason, oracle } = result
    note({ kind: 'case', name, phase: 'end', of: began, state, reason, oracle })
  }
  return result
}

/** A case that passes its own steps and fails the oracle has failed. */
function judgeCase(result: CaseResult): void {
  const check = result.checks.find(({ held }) => !held)
  const row = result.oracle.find(({ state }) => state === 'failed')
  if (!check && !row) return
  result.state = 'failed'
  const { name, expected, found } = check ?? row!
  result.reason = `${check ? '' : `oracle: ${row!.host} `}${name}: expected ${expected}, found ${found}`
}

function announce(faults: FaultState[], name: string, host: string | undefined, note: Note) {
  const state: FaultState = { name, host }
  faults.push(state)
  const began = note({ kind: 'fault', name, host, phase: 'begin' })
  return {
    name,
    host,
    bit: (held: boolean, measured: string) => {
      state.bit = { held, measured }
      note({ kind: 'fault', name: `${name} bit`, host, held, measured })
    },
    healed: (held: boolean, measured: string) => {
      state.healed = { held, measured }
      note({ kind: 'fault', name, host, phase: 'end', of: began, held, measured })
    },
  }
}

/** What QEMU and the keeper say of a VM, onto the run's record: resets, panics, starts. */
const followPower = (host: string, note: Note): (() => void) =>
  follow(
    files(host).events,
    (line) => {
      const { event, data } = JSON.parse(line) as { event: string; data?: object }
      if (/^(SHUTDOWN|RESET|WATCHDOG|GUEST_PANICKED|KEEPER)$/.test(event)) {
        note({ kind: 'power', name: event.toLowerCase(), host, ...data })
      }
    },
    { from: 'end' },
  )

async function within<T>(work: Promise<T>, limit: number, name: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const failure = new Failure(`${name} took longer than its limit of ${limit} s`)
    timer = setTimeout(() => reject(failure), limit * 1000)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

const shown = (value: Value | RegExp | undefined): string =>
  value === undefined ? 'nothing' : String(value)

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

function summarize(results: CaseResult[], record: RunRecord, json: boolean): ExitCode {
  if (json) console.log(JSON.stringify({ run: record.dir, results }, null, 2))
  else {
    const colour = { passed: green, failed: red, error: red, skipped: yellow }
    const rows = results.map((one) => [
      one.family,
      one.case,
      one.hosts.join(' '),
      colour[one.state](one.state),
      `${one.seconds.toFixed(1)} s`,
      one.reason.split('\n')[0]!,
    ])
    console.log(table([['family', 'case', 'VM', '', 'took', ''], ...rows]))
    const count = (state: CaseResult['state']): number =>
      results.filter((one) => one.state === state).length
    console.log(
      `${count('passed')} passed, ${count('failed') + count('error')} failed, ${count('skipped')} skipped`,
    )
    console.log(`record: ${record.dir}`)
    for (const one of results) {
      if (one.state === 'failed' || one.state === 'error') console.log(`replay: ${one.replay}`)
    }
  }
  if (results.some(({ state }) => state === 'error')) return Exit.labCouldNotRun
  return results.some(({ state }) => state === 'failed') ? Exit.checkFailed : Exit.held
}

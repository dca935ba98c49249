import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { NoJson } from './agent-json.ts'
import { clockRanWrong, collectEvidence } from './evidence.ts'
import { deferred } from '../deferred.ts'
import { Failure, Unwritable, explain, onFailure, orUnwritable } from '../failure.ts'
import { follow } from '../vm/follow.ts'
import { KernelFailed } from '../vm/kernel.ts'
import { machine, type Machine } from './machine.ts'
import { judgeFacts, judgeFaults, judgeRemote, type Fault, type FaultState } from './oracle.ts'
import { askFacts, clonesOf, factsWithin } from './oracle-facts.ts'
import { seeded } from './random.ts'
import type { Note } from '../report/record.ts'
import { judgeCase, type CaseResult } from '../report/result.ts'
import { counting, within } from '../retry.ts'
import { Lost } from '../share.ts'
import {
  NotApplicable,
  type Case,
  type Chosen,
  type Ends,
  type Scene,
  type Stage,
  type Value,
  type Watch,
} from './family.ts'
import type { StorePath } from '../nix/store.ts'
import { labHome } from '../settings.ts'
import { notAsked } from './subject.ts'
import { freeBelow, requireSpace } from '../vm/preflight.ts'
import { files } from '../vm/vm.ts'
import { openWorld, type World } from './world.ts'

/** The command by which a person runs a case again: through just, as tsx is only on the path of recipes. */
export const replayOf = ({ family, one }: Chosen, hosts: string[], seed: number): string =>
  ['just', family.name, ...hosts, '--case', one.name, '--seed', seed].join(' ')

/** The result of a case that has not run, without its state. */
export const nothingOf = (
  chosen: Chosen,
  hosts: string[],
  seed: number,
): Omit<CaseResult, 'state' | 'reason'> => ({
  ...{ family: chosen.family.name, case: chosen.one.name, title: chosen.one.title, hosts, seed },
  ...{ seconds: 0, checks: [], oracle: [], replay: replayOf(chosen, hosts, seed) },
})

/** The name of a case's world and evidence; each control has its own, as several may run the same case side by side. */
export const placeOf = ({ family, one }: Chosen, { control }: Pick<Stage, 'control'>): string =>
  [`${family.name}-${one.name}`, ...(control ? [control.name] : [])].join('.')

/** Bytes that must be free to begin a case; `dregs`: bytes below which the disk counts as full. */
const room = 256 * 1024 ** 2
const dregs = 16 * 1024 ** 2

/** Time limit of a case in seconds on KVM, unless it sets its own. */
export const defaultLimit = 180

/** A VM of the run; its baseline must be ready. */
export function inHand(
  host: string,
  stage: Stage,
  say: (line: string) => void = () => {},
  note: Note = stage.record.note,
): Machine {
  const { vm, argv, tag } = stage.prepared.get(host)!
  const { patience } = stage.ground.accelerator
  return machine(vm, { patience, argv, tag, note, say, subject: stage.subject })
}

/**
 * Restores VMs to their baseline.
 * @throws Lost when that fails and there are other labs
 */
export async function putBack(vms: Machine[], { shares }: Stage): Promise<void> {
  try {
    await Promise.all(vms.map((vm) => vm.restore()))
  } catch (thrown) {
    // on a full disk the other labs could not do it either
    if (!shares || !(thrown instanceof Failure) || freeBelow(labHome()) < dregs) throw thrown
    const { evidence } = thrown.detail
    throw new Lost(thrown.message, { evidence, cause: thrown })
  }
}

/**
 * Runs one case: restores the VMs to their baseline, opens a new world, runs the case's steps, then the oracle on every
 * VM, and collects evidence if the case failed. Every outcome is in the result.
 * @throws Lost when the VMs cannot be restored and there are other labs
 */
export async function runCase(
  chosen: Chosen,
  hosts: string[],
  stage: Stage,
  say: (line: string) => void,
): Promise<CaseResult> {
  await stage.pause?.over()
  const { family, one } = chosen
  const name = `${family.name}/${one.name}`
  const note: Note = (event) => stage.record.note({ case: name, ...event })
  const from = performance.now()
  const began = note({ kind: 'case', name, phase: 'begin', hosts })
  const blank = nothingOf(chosen, hosts, stage.seed)
  const replay = stage.control?.replay ?? blank.replay + stage.flags
  const result: CaseResult = { ...blank, replay, state: 'passed', reason: '' }
  const without = notAsked(stage.subject, one)
  if (without !== undefined) {
    Object.assign(result, { state: 'skipped', reason: without })
    note({ kind: 'case', name, phase: 'end', of: began, state: result.state, reason: without })
    return result
  }
  const vms = hosts.map((host) => inHand(host, stage, say, note))
  const running: Running = {
    one,
    name,
    place: placeOf(chosen, stage),
    vms,
    stage,
    result,
    note,
    say,
  }
  const { lost, unwritable } = await playOut(running)
  // a guest that is lost, or that QEMU has stopped, would not answer
  if (!lost && !unwritable) {
    if (stage.watch) {
      say('look at what was watched')
      for (const vm of vms) await takeFrom(vm, stage.watch, name, say)
    }
    if (result.state === 'failed' || result.state === 'error') await collect(running)
  }
  for (const vm of vms) vm.retire()
  result.seconds = (performance.now() - from) / 1000
  const { state, reason, checks, oracle } = result
  note({ kind: 'case', name, phase: 'end', of: began, state, reason, checks, oracle })
  if (lost) throw lost
  if (state === 'failed' || state === 'error') {
    await stage.pause?.at(result, [...stage.prepared.keys()])
  }
  return result
}

interface Running extends Pick<Parts, 'name' | 'vms' | 'stage' | 'result' | 'note' | 'say'> {
  one: Case
  place: string
}

/**
 * Runs a case to its end or to its failure, and records which in its result.
 * @returns why its guests cannot be asked any more, if they cannot
 */
async function playOut(running: Running): Promise<{ lost?: Lost; unwritable?: boolean }> {
  const { name, vms, result, note } = running
  const full = deferred<never>()
  const stop = vms.map(({ host }) => followPower(host, note))
  // QEMU stops a guest when a write finds no room, and every wait for the guest would run into its limit
  const fullness = setInterval(() => {
    if (freeBelow(labHome()) < dregs) full.reject(new Unwritable('The disk of LAB_HOME is full'))
  }, 1000)
  stop.push(() => clearInterval(fullness))
  try {
    await play(running, full.promise)
    judgeCase(result)
    return {}
  } catch (error) {
    const thrown = orUnwritable(error)
    // a failure on a full disk says nothing about the guests
    const unwritable = thrown instanceof Unwritable || freeBelow(labHome()) < dregs
    const said = judgeThrown(result, thrown, name)
    if (unwritable) {
      result.state = 'error'
      result.reason =
        thrown instanceof Unwritable
          ? thrown.message
          : `The disk of LAB_HOME is full; ${result.reason}`
    }
    if (said) note({ kind: 'say', name: said })
    return { lost: thrown instanceof Lost ? thrown : undefined, unwritable }
  } finally {
    for (const end of stop) end()
  }
}

/** Runs the case itself, then the oracle. @param full rejects once the disk is full */
async function play(running: Running, full: Promise<never>): Promise<void> {
  const { one, name, place, vms, stage, result, note, say } = running
  requireSpace(labHome(), room, `run \`${name}\``)
  const hosts = vms.map(({ host }) => host)
  const world = openWorld(`${stage.record.id}/${place}`, stage.from, hosts)
  await putBack(vms, stage)
  const { watch } = stage
  if (watch) await Promise.all(vms.map((vm) => vm.root(watch.before)))
  const faults: FaultState[] = []
  const ends = new Map<string, Ends | StorePath>()
  const scene = sceneOf({ name, vms, world, stage, result, faults, ends, note, say })
  const limit = (one.limit ?? defaultLimit) * stage.ground.accelerator.patience
  const late = `The case \`${name}\` took longer than its limit of ${limit} s`
  const over = Promise.race([one.run(scene), full])
  await within(over, limit, () => new Failure(late))
  const asked = note({ kind: 'step', name: 'oracle', phase: 'begin', hosts })
  result.oracle.push(...judgeFaults(faults).map((row) => ({ host: '', ...row })))
  for (const kind of ['config', 'dotfiles'] as const) {
    const row = judgeRemote(kind, await world[kind].made(), await world[kind].commits())
    result.oracle.push({ host: '', ...row })
  }
  await Promise.all(
    vms.map(async (vm) => {
      const wanted = ends.get(vm.host) ?? one.ends ?? 'start'
      const facts = () => ask(vm, wanted, world, stage)
      result.oracle.push(...(await counting(`oracle on ${vm.host}`, factsWithin(vm), say, facts)))
    }),
  )
  note({ kind: 'step', name: 'oracle', phase: 'end', of: asked })
}

/** Collects the evidence of a failed case. If a guest's clock ran wrong, the result becomes an error. */
async function collect({ place, vms, stage, result, say }: Running): Promise<void> {
  say('collect the evidence')
  const evidence = join(stage.record.dir, 'evidence', place)
  result.evidence = evidence
  const dir = (vm: Machine): string => join(evidence, vm.host)
  try {
    mkdirSync(evidence, { recursive: true, mode: 0o700 })
    await Promise.all(vms.map((vm) => collectEvidence(vm, dir(vm), result.replay, stage.from)))
    const starved = vms.find((vm) => clockRanWrong(dir(vm)))
    // with a wrong clock the time limits were not those of the case
    if (starved) {
      result.state = 'error'
      result.reason = `The clock of \`${starved.host}\` ran wrong, because this machine was too busy during its boot; ${result.reason}`
    }
  } catch (thrown) {
    // the case's result matters more than its evidence
    result.reason += `; its evidence is not whole: ${(orUnwritable(thrown) as Error).message}`
  }
}

async function takeFrom(
  vm: Machine,
  { after, take }: Watch,
  name: string,
  say: (line: string) => void,
): Promise<void> {
  await vm
    .root(after, { timeout: 60 * vm.patience })
    .then(({ stdout }) => take(name, stdout))
    .catch(onFailure(({ message }) => say(`nothing to see on ${vm.host}: ${message}`)))
}

/**
 * Judges a case that was ended by an exception. If a check was already red, that check is the reason, because later
 * failures may only follow from it. If the guest's kernel is dead, the case is an error, whatever was red.
 * @returns further details, for the record
 */
export function judgeThrown(result: CaseResult, thrown: unknown, name: string): string | undefined {
  const known = thrown instanceof Failure
  const message = known ? thrown.message : explain(name, thrown)
  const dead = thrown instanceof KernelFailed && thrown.how === 'oopsed'
  const more = known ? thrown.detail.evidence : undefined
  // an agent's broken JSON counts as a red check
  if (thrown instanceof NoJson) {
    const found = more?.trim().slice(0, 200) || 'nothing'
    result.checks.push({ name: `${thrown.what} is JSON`, held: false, expected: 'JSON', found })
  }
  const red = result.checks.some(({ held }) => !held)
  if (red && !dead) {
    judgeCase(result)
    return [message, more].filter(Boolean).join('\n')
  }
  result.state = thrown instanceof NotApplicable ? 'skipped' : known && !dead ? 'failed' : 'error'
  result.reason = message
  return more
}

interface Parts {
  name: string
  vms: Machine[]
  world: World
  stage: Stage
  result: CaseResult
  faults: FaultState[]
  ends: Map<string, Ends | StorePath>
  note: Note
  say: (line: string) => void
}

function sceneOf({ name, vms, world, stage, result, faults, ends, note, say }: Parts): Scene {
  const check: Scene['check'] = (what, expected, found) => {
    // a pattern must not match the word `undefined` of a missing value
    const there = expected !== undefined && found !== undefined
    const held =
      there && (expected instanceof RegExp ? matches(expected, found) : expected === found)
    const row = { name: what, held, expected: shown(expected), found: shown(found) }
    result.checks.push(row)
    note({ kind: 'check', ...row })
    if (!held && stage.control?.red.test(what)) throw new Failure(`${what} is red, as it had to be`)
    return held
  }
  return {
    vm: vms[0]!,
    get other() {
      if (!vms[1]) throw new Error(`case ${name} has one VM only`)
      return vms[1]
    },
    vms,
    subject: stage.subject,
    world,
    store: stage.ground.store,
    patience: stage.ground.accelerator.patience,
    seed: stage.seed,
    random: seeded(stage.seed),
    start: (vm) => stage.prepared.get(vm.host)!.toplevel,
    golden: (vm) => stage.prepared.get(vm.host)!.facts.goldenEnable,
    wanted: async (vm) => (await world.host(vm.host, world.branch, stage.ground.store)).toplevel,
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
}

/** Asks the oracle about one VM. @returns its rows */
async function ask(
  vm: Machine,
  wanted: Ends | StorePath,
  world: World,
  stage: Stage,
): Promise<CaseResult['oracle']> {
  const { toplevel, facts: declared } = stage.prepared.get(vm.host)!
  const services = [...new Set([...declared.validateServices, ...Object.values(declared.units)])]
  const unavailable = Object.fromEntries(
    Object.entries(declared.unavailable).flatMap(([service, reason]) => {
      const unit = declared.units[service]
      return unit ? [[unit, reason]] : []
    }),
  )
  const clones = clonesOf(world.paths)
  const units = [
    ...services.filter((unit) => !(unit in unavailable)),
    ...(declared.goldenEnable ? ['golden-boot-validation.service'] : []),
    'boot-complete.target',
  ]
  // main is evaluated on this side while the guest answers
  const [facts, main] = await Promise.all([
    askFacts(vm, units, clones),
    wanted === 'main' ? world.host(vm.host, world.branch, stage.ground.store) : undefined,
  ])
  const named = { any: undefined, main: main?.toplevel, start: toplevel, golden: toplevel }
  const running = wanted in named ? named[wanted as Ends] : wanted
  const start = world.start.config
  const known = facts.repositories[clones[0]!]?.commits ?? {}
  const descends = (commit: string): boolean =>
    commit === start || (known[commit]?.parents ?? []).some((parent) => descends(parent))
  // a host that upgrades without its clone deploys commits that the clone has never fetched
  const deployed = facts.deployed?.commit
  const published = deployed !== undefined && (await world.config.follows(deployed, start))
  const rows = judgeFacts(facts, {
    host: declared.hostName,
    running,
    golden: toplevel,
    booted: wanted === 'golden',
    services,
    unavailable,
    mayFail: [`${stage.subject.unit}.service`, 'chezmoi-pre-update.service', ...declared.mayFail],
    clones,
    deployable: (commit) => (commit === deployed && published) || descends(commit),
    lacks: {
      golden: declared.goldenEnable ? undefined : 'the host has no golden generation',
      words: stage.subject.status ? undefined : `${stage.subject.title} says nothing of itself`,
    },
  })
  return rows.map((row) => ({ host: vm.host, ...row }))
}

function announce(faults: FaultState[], name: string, host: string | undefined, note: Note): Fault {
  const state: FaultState = { name, host }
  faults.push(state)
  const began = note({ kind: 'fault', name, host, phase: 'begin' })
  return {
    name,
    host,
    bit: (held, measured) => {
      state.bit = { held, measured }
      note({ kind: 'fault', name: `${name} bit`, host, held, measured })
    },
    healed: (held, measured) => {
      state.healed = { held, measured }
      note({ kind: 'fault', name, host, phase: 'end', of: began, held, measured })
    },
  }
}

/** Copies what QEMU and the keeper report about a VM into the run's record: resets, panics, starts. */
const followPower = (host: string, note: Note): (() => void) =>
  follow(
    files(host).events,
    (line) => {
      const { event, data } = JSON.parse(line) as { event: string; data?: object }
      if (/^(SHUTDOWN|RESET|WATCHDOG|GUEST_PANICKED|KEEPER|BLOCK_IO_ERROR)$/.test(event)) {
        note({ kind: 'power', name: event.toLowerCase(), host, ...data })
      }
    },
    { from: 'end' },
  )

const matches = (pattern: RegExp, found: Value): boolean =>
  found !== null && pattern.test(String(found))

const shown = (value: Value | RegExp | undefined): string =>
  value === undefined ? 'nothing' : String(value)

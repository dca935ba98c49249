import { readFileSync, statSync } from 'node:fs'
import { Failure, explain } from '../failure.ts'
import type { Note } from '../report/record.ts'
import { runShared, type SharedStep } from '../shared-steps.ts'
import { inLab, labHome } from '../settings.ts'
import { copyVm, copyWho, moldOf, reserveCopies, titleInCopy, type HeldCopy } from '../vm/copies.ts'
import { freeze, thaw } from '../vm/frozen.ts'
import { writeSshConfigOfAll } from '../vm/identity.ts'
import { gib, requireSpace } from '../vm/preflight.ts'
import { freePort } from '../vm/port.ts'
import { qemuArgs } from '../vm/qemu.ts'
import { setClock } from '../vm/snapshot.ts'
import {
  files,
  knownVms,
  newUuid,
  qemuOf,
  readVm,
  writeVm,
  type Frozen,
  type Vm,
} from '../vm/vm.ts'
import type { Stage } from './family.ts'
import type { Prepared } from './prepared.ts'

/** VMs at their baseline, on which cases run in any order: the run's own, or copies of them. */
export interface Lab {
  /** Names of its VMs in the report, in the order of the run's hosts. */
  titles: string[]
  ready: Promise<OpenLab>
}

export interface OpenLab {
  /** Does work in this lab: host names then mean this lab's VMs. */
  use: <T>(work: (stage: Stage) => Promise<T>) => Promise<T>
}

/** Bytes that a case may add to a copy of a disk. */
const growth = 512 * 1024 ** 2

/**
 * Copies the run's VMs, which are at their baseline: once as a mold, which takes a while, then from the mold for each
 * copy. Copies are started one after the other.
 * @param keep called with the copies as soon as they occupy anything, so that they can be removed
 * @returns the run's own lab and its copies
 * @throws Failure when there is no room for them
 */
export async function openLabs(
  stage: Stage,
  hosts: string[],
  jobs: number,
  keep: (copies: HeldCopy[]) => void,
  say: (line: string) => void,
): Promise<Lab[]> {
  const size = hosts.reduce((sum, host) => sum + diskOf(host), 0)
  const count = jobs - 1
  // the memory in a snapshot becomes a separate file
  requireSpace(labHome(), 2 * size + count * hosts.length * growth, `make ${count} copies`)
  const copies = await reserveCopies(count)
  keep(copies)
  const ports = new Set(knownVms().flatMap((host) => readVm(host)?.port ?? []))
  say(`copy ${gib(size)}`)
  const began = stage.record.note({ kind: 'step', name: 'make copies', phase: 'begin', hosts })
  const mold = moldOf(copies[0]!.home)
  const cast = async (host: string): Promise<[string, Frozen]> => {
    const { vm, tag } = stage.prepared.get(host)!
    await copyVm(vm, tag, mold)
    for (const { home } of copies) await copyWho(vm, home)
    const limit = 60 * stage.ground.accelerator.patience
    const one = { ...vm, uuid: newUuid() }
    const frozen = () => onFreePort(stage, one, ports, (to, argv) => freeze(to, tag, argv, limit))
    return [host, await inLab(mold, frozen)]
  }
  const frozen = new Map(await Promise.all(hosts.map(cast)))
  stage.record.note({ kind: 'step', name: 'make copies', phase: 'end', of: began, count })
  const own = renamed(stage, hosts, (host) => host)
  const labs: Lab[] = [
    { titles: hosts, ready: Promise.resolve({ use: (work) => work(own) } satisfies OpenLab) },
  ]
  let before: Promise<unknown> = Promise.resolve()
  for (const copy of copies) {
    const called = (host: string): string => titleInCopy(host, copy)
    const ready = before.then(() =>
      inLab(copy.home, () => start(stage, hosts, copy, called, ports, frozen)),
    )
    before = ready.catch(() => {})
    labs.push({ titles: hosts.map(called), ready })
  }
  return labs
}

/** Starts a copy's VMs where their baseline left off. */
async function start(
  stage: Stage,
  hosts: string[],
  { number, home }: HeldCopy,
  called: (host: string) => string,
  ports: Set<number>,
  frozen: Map<string, Frozen>,
): Promise<OpenLab> {
  const of = renamed(stage, hosts, called)
  const began = of.record.note({ kind: 'step', name: `copy ${number}`, phase: 'begin' })
  const limit = 30 * stage.ground.accelerator.patience
  const started = async (host: string): Promise<[string, Prepared]> => {
    const original = stage.prepared.get(host)!
    const state = frozen.get(host)!
    const copy: Vm = { ...original.vm, uuid: newUuid(), frozen: state }
    const thawed = async (vm: Vm, argv: string[]): Promise<Prepared> => {
      await thaw(vm, state, argv, limit)
      return { ...original, vm, argv }
    }
    const prepared = await onFreePort(stage, copy, ports, thawed)
    await setClock(prepared.vm, limit)
    return [host, prepared]
  }
  const prepared = new Map(await Promise.all(hosts.map(started)))
  writeSshConfigOfAll()
  const disk = hosts.reduce((sum, host) => sum + diskOf(host), 0)
  const memory = [...prepared.values()].reduce((sum, { vm }) => sum + memoryOf(vm), 0)
  of.record.note({ kind: 'step', name: `copy ${number}`, phase: 'end', of: began, disk, memory })
  return { use: (work) => inLab(home, () => work({ ...of, prepared })) }
}

/** Starts a copy of a VM on a free port; if another process takes that port first, tries again with another one. */
async function onFreePort<T>(
  { ground: { accelerator, firmware } }: Stage,
  copy: Vm,
  ports: Set<number>,
  use: (vm: Vm, argv: string[]) => Promise<T>,
): Promise<T> {
  for (let tries = 3; ; tries--) {
    const port = await freePort(copy.slot, ports)
    ports.add(port)
    const vm: Vm = { ...copy, port }
    writeVm(vm)
    try {
      return await use(vm, qemuArgs(vm, accelerator.kind, firmware))
    } catch (error) {
      if (tries === 0 || !/forwarding rule/.test((error as Error).message)) throw error
    }
  }
}

/** The stage of one lab: its events go onto the run's record under the names of this lab's VMs. */
function renamed(stage: Stage, hosts: string[], called: (host: string) => string): Stage {
  const { record } = stage
  const note: Note = (event) => {
    const { host } = event
    if (host !== undefined) return record.note({ ...event, host: called(host) })
    const some = (event['hosts'] as string[] | undefined) ?? hosts
    return record.note({ ...event, hosts: some.map(called) })
  }
  return { ...stage, record: { ...record, note }, shares: true }
}

/** Bytes that the images of a VM occupy on disk. */
const diskOf = (host: string): number =>
  [files(host).disk, files(host).vars].reduce((sum, path) => sum + statSync(path).blocks * 512, 0)

/** Bytes of private memory of a VM's QEMU, without what copies share. */
function memoryOf(vm: Vm): number {
  const { pid } = qemuOf(vm) ?? {}
  const status = pid === undefined ? '' : readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024
}

/**
 * Distributes cases over labs, and prints which labs were lost.
 * @param nobody called for each case that no lab was left to run, with the reason
 */
export async function shareOut<S extends SharedStep<OpenLab>>(
  steps: S[],
  labs: Lab[],
  stage: Stage,
  quiet: boolean,
  nobody: (step: S, why: Failure) => void,
): Promise<void> {
  const losses: { why: Failure; words: string }[] = []
  const lost = (index: number, why: Failure): void => {
    const words = explain(`${labs[index]!.titles.join(' and ')} had to be left out`, why)
    losses.push({ why, words })
    stage.record.note({ kind: 'say', name: words })
  }
  const left = await runShared(steps, labs, lost, { quiet })
  for (const step of left) nobody(step, losses.at(-1)!.why)
  // after the live display has ended
  for (const { words } of losses) console.error(words)
}

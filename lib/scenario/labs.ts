import { readFileSync, statSync } from 'node:fs'
import { Failure, explain } from '../failure.ts'
import type { Note } from '../report/record.ts'
import { runShared, type SharedStep } from '../shared-steps.ts'
import { counting } from '../retry.ts'
import { inLab, labHome } from '../settings.ts'
import { copyVm, reserveCopies, titleInCopy, type HeldCopy } from '../vm/copies.ts'
import { writeSshConfigOfAll } from '../vm/identity.ts'
import { gib, requireSpace } from '../vm/preflight.ts'
import { ensureKeeper, freePort, qemuArgs, startQemu } from '../vm/qemu.ts'
import { restoreSnapshot } from '../vm/snapshot.ts'
import { files, knownVms, newUuid, qemuOf, readVm, writeVm, type Vm } from '../vm/vm.ts'
import type { Stage } from './family.ts'
import type { Prepared } from './prepared.ts'

/** VMs at their baseline that cases are run on, in any order: the run's own, or copies of them. */
export interface Lab {
  /** What its VMs are called in the report, in the order of the run's hosts. */
  titles: string[]
  ready: Promise<OpenLab>
}

export interface OpenLab {
  /** Does work there: all that it asks of a VM by its name is of this lab's. */
  use: <T>(work: (stage: Stage) => Promise<T>) => Promise<T>
}

/** Bytes that a case may add to a copy of a disk. */
const growth = 512 * 1024 ** 2

/**
 * Copies the run's VMs, which are at their baseline, and starts the copies one after the other.
 * @param keep told of the copies as soon as there is something of them, for whoever removes them
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
  requireSpace(labHome(), count * (size + hosts.length * growth), `make ${count} copies`)
  const copies = await reserveCopies(count)
  keep(copies)
  say(`copy ${gib(size)}`)
  const began = stage.record.note({ kind: 'step', name: 'make copies', phase: 'begin', hosts })
  for (const host of hosts) {
    const { vm, tag } = stage.prepared.get(host)!
    await copyVm(
      vm,
      tag,
      copies.map(({ home }) => home),
    )
  }
  stage.record.note({ kind: 'step', name: 'make copies', phase: 'end', of: began, count })
  const own = renamed(stage, hosts, (host) => host)
  const labs: Lab[] = [
    { titles: hosts, ready: Promise.resolve({ use: (work) => work(own) } satisfies OpenLab) },
  ]
  const ports = new Set(knownVms().flatMap((host) => readVm(host)?.port ?? []))
  let before: Promise<unknown> = Promise.resolve()
  for (const copy of copies) {
    const called = (host: string): string => titleInCopy(host, copy)
    const ready = before.then(() =>
      inLab(copy.home, () => start(stage, hosts, copy, called, ports)),
    )
    before = ready.catch(() => {})
    labs.push({ titles: hosts.map(called), ready })
  }
  return labs
}

/** Starts a copy's VMs from the baseline in their disks. */
async function start(
  stage: Stage,
  hosts: string[],
  { number, home }: HeldCopy,
  called: (host: string) => string,
  ports: Set<number>,
): Promise<OpenLab> {
  const of = renamed(stage, hosts, called)
  const began = of.record.note({ kind: 'step', name: `copy ${number}`, phase: 'begin' })
  const prepared = new Map<string, Prepared>()
  for (const host of hosts) prepared.set(host, await powerOn(stage, host, ports))
  writeSshConfigOfAll()
  const limit = 30 * stage.ground.accelerator.patience
  await Promise.all(
    [...prepared.values()].map(({ vm, tag, argv }) =>
      counting(
        `start ${called(vm.host)}`,
        limit,
        () => {},
        () => restoreSnapshot(vm, tag, argv, limit),
      ),
    ),
  )
  const disk = hosts.reduce((sum, host) => sum + diskOf(host), 0)
  const memory = [...prepared.values()].reduce((sum, { vm }) => sum + memoryOf(vm), 0)
  of.record.note({ kind: 'step', name: `copy ${number}`, phase: 'end', of: began, disk, memory })
  return { use: (work) => inLab(home, () => work({ ...of, prepared })) }
}

/** A QEMU whose CPUs wait for the baseline; a port that was taken since it was looked at means another one. */
async function powerOn(stage: Stage, host: string, ports: Set<number>): Promise<Prepared> {
  const original = stage.prepared.get(host)!
  const { accelerator, firmware } = stage.ground
  for (let tries = 3; ; tries--) {
    const port = await freePort(original.vm.slot, ports)
    ports.add(port)
    const vm: Vm = { ...original.vm, uuid: newUuid(), port }
    writeVm(vm)
    const argv = qemuArgs(vm, accelerator.kind, firmware)
    try {
      await startQemu(vm, argv, true)
      ensureKeeper(vm)
      return { ...original, vm, argv }
    } catch (error) {
      if (tries === 0 || !/forwarding rule/.test((error as Error).message)) throw error
    }
  }
}

/** The stage as a lab has it: what happens there goes onto the run's record under the names of its own VMs. */
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

/** Bytes that the images of a VM take on the disk. */
const diskOf = (host: string): number =>
  [files(host).disk, files(host).vars].reduce((sum, path) => sum + statSync(path).blocks * 512, 0)

/** Bytes of memory that a VM's QEMU has. */
function memoryOf(vm: Vm): number {
  const { pid } = qemuOf(vm) ?? {}
  const status = pid === undefined ? '' : readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024
}

/**
 * Has labs share cases, and says which lab was lost meanwhile.
 * @param nobody told of each case that no lab was left for, and why
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
  // once nothing is drawn any more
  for (const { words } of losses) console.error(words)
}

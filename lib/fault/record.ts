import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { attempt, Failure } from '../failure.ts'
import { holds, kinds, links, type Fault } from './fault.ts'
import { lock, locked, type Lock } from '../lock.ts'
import { files, qemuOf, readJson, writeJson, type Vm } from '../vm/vm.ts'

/** Where the faults of a VM are recorded: what the keeper goes by, and what outlives every task. */
export const faultFile = (host: string): string => join(files(host).dir, 'faults.json')

/**
 * The faults that are recorded of a VM, over or not.
 * @throws Failure when the record is not one
 */
export function recordedFaults(host: string): Fault[] {
  try {
    const faults = readJson<Fault[]>(faultFile(host)) ?? []
    if (Array.isArray(faults) && faults.every(isFault)) return faults
  } catch (thrown) {
    if (!(thrown instanceof Failure)) throw thrown
  }
  throw new Failure(`Cannot read \`${faultFile(host)}\`: it is not a record of faults`, {
    hint: `tsx tasks/chaos-network.ts heal --host ${host} heals whatever there is`,
  })
}

/** The same, and none of a record that nobody can read. */
export const readableFaults = (host: string): Fault[] =>
  attempt(
    () => recordedFaults(host),
    () => [],
  )

/** The faults of a VM that are at work, by the record and by what runs. */
export function activeFaults(vm: Vm, now = Date.now()): Fault[] {
  const qemu = qemuOf(vm)
  return recordedFaults(vm.host).filter((fault) => holds(fault, qemu, now))
}

/** Records these faults of a VM, in place of what was recorded. */
export function recordFaults(host: string, faults: Fault[]): void {
  if (faults.length === 0) rmSync(faultFile(host), { force: true })
  else writeJson(faultFile(host), faults)
}

/** One task at a time changes the faults of a VM; held by the kernel, so a crash lets it go. */
export const lockFaults = (host: string): Promise<Lock> =>
  lock(join(files(host).dir, 'faults.lock'), `change the faults of \`${host}\``, { wait: 60 })

/** Does something for which nobody else may change the faults of these VMs. */
export const withFaults = <T>(hosts: string[], work: () => T | Promise<T>): Promise<T> =>
  locked(
    hosts.map((host) => () => lockFaults(host)),
    work,
  )

const isFault = (value: unknown): value is Fault => {
  const fault = (value ?? {}) as Partial<Fault>
  return (
    typeof fault.id === 'string' &&
    Object.hasOwn(kinds, fault.kind ?? '') &&
    links.includes(fault.link!) &&
    Number.isFinite(fault.since) &&
    Number.isFinite(fault.until) &&
    Number.isInteger(fault.qemu?.pid)
  )
}

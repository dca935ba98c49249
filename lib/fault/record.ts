import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { attempt, Failure } from '../failure.ts'
import { holds, kinds, links, type Fault } from './fault.ts'
import { lock, locked, type Lock } from '../lock.ts'
import { files, qemuOf, readJson, writeJson, type Vm } from '../vm/vm.ts'

/** The file that records the faults of a VM. The keeper reads it, and it outlives every task. */
export const faultFile = (host: string): string => join(files(host).dir, 'faults.json')

/**
 * The recorded faults of a VM, expired ones included.
 * @throws Failure when the file is not a record of faults
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

/** The same, but none where the record cannot be read. */
export const readableFaults = (host: string): Fault[] =>
  attempt(
    () => recordedFaults(host),
    () => [],
  )

/** The recorded faults of a VM that are in effect in the QEMU that runs. */
export function activeFaults(vm: Vm, now = Date.now()): Fault[] {
  const qemu = qemuOf(vm)
  return recordedFaults(vm.host).filter((fault) => holds(fault, qemu, now))
}

/** Replaces the record of a VM's faults. */
export function recordFaults(host: string, faults: Fault[]): void {
  if (faults.length === 0) rmSync(faultFile(host), { force: true })
  else writeJson(faultFile(host), faults)
}

/** Lets one task at a time change the faults of a VM. The kernel holds the lock, so a crash releases it. */
export const lockFaults = (host: string): Promise<Lock> =>
  lock(join(files(host).dir, 'faults.lock'), `change the faults of \`${host}\``, { wait: 60 })

/** Runs `work` while no other task can change the faults of these VMs. */
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

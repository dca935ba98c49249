import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { Failure, onFailure } from '../failure.ts'
import { setCable } from './cable.ts'
import {
  faultName,
  kindOf,
  links,
  secondsLeft,
  type Fault,
  type Link,
  type Request,
} from './fault.ts'
import {
  activeFaults,
  faultFile,
  readableFaults,
  recordFaults,
  recordedFaults,
  withFaults,
} from './record.ts'
import { agrees, healing, injection, looking, rules, seen, type Seen } from './rules.ts'
import { before, measure, unfaulted } from './measure.ts'
import { shell } from './probe.ts'
import type { Proof } from './proof.ts'
import { withGuest } from '../vm/guest-agent.ts'
import { ensureKeeper } from '../vm/qemu.ts'
import { withMonitor } from '../vm/monitor.ts'
import { waitFor } from '../retry.ts'
import { qemuOf, theVm, type Vm } from '../vm/vm.ts'

/**
 * Injects a fault and returns one record for each VM as soon as the fault is in effect. It heals
 * itself when its lease ends, even if this task is killed. Links are measured first, so that a later
 * difference is due to the fault.
 * @throws Failure when a link does not work, or has a fault already
 */
export async function inject(request: Request): Promise<Fault[]> {
  const vms = request.hosts.map(theVm)
  const hosts = vms.toSorted((a, b) => a.slot - b.slot).map(({ host }) => host)
  return withFaults(hosts, async () => {
    const id = `f${randomBytes(4).toString('hex')}`
    const faults = await Promise.all(vms.map((vm) => prepare(id, request, vm)))
    // both sides of a partition have been measured by now, before either has the fault
    await allOrNothing(faults, (fault) => put(fault, request.lease))
    return faults
  })
}

/** Measures with real packets whether a fault does what was requested, on each of its VMs. */
export async function prove(faults: Fault[]): Promise<Proof> {
  const proof = await measure(faults)
  const over = faults.find((fault) => Date.now() >= fault.until)
  if (!over) return proof
  return {
    holds: false,
    text: `${proof.text}; the lease of ${faultName(over)} ended while it was measured`,
  }
}

/** A fault of a VM, by its record and by the guest's own state. */
export interface Listed {
  host: string
  link: Link
  name: string
  /** `unrecorded`: the guest has it, but no record does. `unconfirmed`: the guest does not answer. */
  state: 'active' | 'unrecorded' | 'unconfirmed'
  left: number
}

/**
 * The faults of a VM, checked against the guest itself. Drops the record of a fault that the guest
 * no longer has, as after a snapshot was loaded.
 */
export async function list(vm: Vm): Promise<Listed[]> {
  const recorded = activeFaults(vm)
  if (!qemuOf(vm)) return []
  const there = await look(vm).catch(onFailure(() => undefined))
  const now = Date.now()
  const listed = (fault: Fault, state: Listed['state']): Listed => ({
    host: vm.host,
    link: fault.link,
    name: faultName(fault),
    state,
    left: secondsLeft(fault, now),
  })
  if (!there) return recorded.map((fault) => listed(fault, 'unconfirmed'))
  const gone = recorded.filter((fault) => !agrees(fault, there[fault.link]))
  if (gone.length > 0) await forget(vm.host, gone)
  const found = recorded.filter((fault) => !gone.includes(fault))
  return links.flatMap((link) => {
    const known = found.find((fault) => fault.link === link)
    if (known) return [listed(known, 'active')]
    const { lease, ruled, carrier } = there[link]
    if (lease) return [listed({ ...lease, host: vm.host }, 'unrecorded')]
    if (!ruled && carrier) return []
    const name = `${ruled ? 'rules' : 'no carrier'} on ${link} of ${vm.host}`
    return [{ host: vm.host, link, name, state: 'unrecorded' as const, left: 0 }]
  })
}

/**
 * Heals a VM's links, with or without a record of a fault, and waits until they work as before.
 * @returns one line for each link that had a fault, recorded or not
 * @throws Failure when a link still does not work
 */
export async function heal(vm: Vm, which: readonly Link[] = links): Promise<string[]> {
  return withFaults([vm.host], async () => {
    const recorded = readableFaults(vm.host)
    const mine = recorded.filter(({ link }) => which.includes(link))
    const rest = recorded.filter(({ link }) => !which.includes(link))
    if (!qemuOf(vm)) {
      // faults of the guest's kernel ended with QEMU, and a pulled cable exists only in the record
      recordFaults(vm.host, rest)
      return mine.map((fault) => `${faultName(fault)}: gone with QEMU`)
    }
    recordFaults(vm.host, [...rest, ...mine.filter(({ kind }) => !kindOf(kind).cable)])
    await plugIn(vm, which)
    const had = await withGuest(vm, async (guest) => {
      const found = seen(await shell(guest, looking))
      await shell(guest, healing(which))
      return found
    })
    await waitFor(`the links of \`${vm.host}\` to be whole`, 20, async () => {
      const there = await look(vm)
      return which.every((link) => whole(there[link]))
    })
    recordFaults(vm.host, rest)
    const lines: string[] = []
    for (const link of which) {
      const fault = mine.find((one) => one.link === link) ?? had[link].lease
      if (!fault && whole(had[link])) continue
      const proof = await unfaulted(vm, link, fault)
      if (!proof.holds) throw new Failure(`Cannot heal ${link} of \`${vm.host}\`: ${proof.text}`)
      lines.push(`${fault ? faultName(fault) : `${link} of ${vm.host}`}: healed, ${proof.text}`)
    }
    return lines
  })
}

/**
 * Ends all faults of a VM that is about to be restored to a snapshot: the snapshot does not contain
 * the rules of the guest's kernel, so the record must go too. Costs nothing where none is recorded.
 */
export async function endFaults(vm: Vm): Promise<void> {
  if (!existsSync(faultFile(vm.host))) return
  await withFaults([vm.host], async () => {
    recordFaults(vm.host, [])
    // a QEMU that is just ending, as when its guest reboots, takes its link state with it
    if (qemuOf(vm)) await plugIn(vm, links).catch(onFailure(() => {}))
  })
}

async function prepare(id: string, request: Request, vm: Vm): Promise<Fault> {
  const { hosts, lease: _, ...asked } = request
  const qemu = qemuOf(vm)
  if (!qemu) {
    throw new Failure(`Cannot inject ${request.kind} into \`${vm.host}\`: it is not running`, {
      hint: `just deploy-test-vm ${vm.host}`,
    })
  }
  const there = (await look(vm))[request.link]
  const other = activeFaults(vm).find(({ link }) => link === request.link)
  if (other && agrees(other, there)) throw taken(request, vm, `${faultName(other)} is at work`)
  if (!whole(there)) {
    throw taken(request, vm, there.carrier ? 'it has rules of another fault' : 'it has no carrier')
  }
  const { pid, start } = qemu
  const peer = hosts.find((host) => host !== vm.host)
  const fault = { ...asked, id, host: vm.host, ...(request.kind === 'partition' && { peer }) }
  const untouched = await before({ ...fault, peer })
  const now = Date.now()
  return {
    ...fault,
    before: untouched,
    since: now,
    until: now,
    state: 'wanted',
    qemu: { pid, start },
  }
}

/** Injects a fault: a guest's is recorded as `wanted` before and `active` after, a cable's as `active` at once. */
async function put(fault: Fault, lease: number): Promise<void> {
  const vm = theVm(fault.host)
  const cable = kindOf(fault.kind).cable
  // drops expired faults, and one of this link that loading a snapshot has removed
  const others = recordedFaults(vm.host).filter(
    ({ link, until }) => link !== fault.link && until > Date.now(),
  )
  fault.since = Date.now()
  fault.until = fault.since + lease * 1000
  if (cable) fault.state = 'active'
  recordFaults(vm.host, [...others, fault])
  if (cable) {
    ensureKeeper(vm)
    await waitFor(
      `the cable of ${fault.link} of \`${vm.host}\` to be pulled`,
      20,
      async () => !(await look(vm))[fault.link].carrier,
      { every: 0.2 },
    )
  } else {
    const commands = rules(fault, fault.peer === undefined ? 0 : theVm(fault.peer).slot)
    await withGuest(vm, (guest) =>
      guest.exec('/bin/sh', ['-s'], { input: `${injection(fault, commands, lease)}\n` }),
    )
    fault.state = 'active'
    recordFaults(vm.host, [...others, fault])
  }
}

/** Does the work for each VM; if it fails for one, removes the fault from all. */
async function allOrNothing(faults: Fault[], work: (fault: Fault) => Promise<void>): Promise<void> {
  const done = await Promise.allSettled(faults.map(work))
  const failed = done.find((one) => one.status === 'rejected')
  if (!failed) return
  for (const { host, link } of faults) {
    const vm = theVm(host)
    recordFaults(
      host,
      readableFaults(host).filter((one) => one.link !== link),
    )
    await plugIn(vm, [link]).catch(() => {})
    await withGuest(vm, (guest) => shell(guest, healing([link]))).catch(() => {})
  }
  throw failed.reason
}

/** The keeper would do this within a moment; a VM that has lost its keeper needs it done here. */
const plugIn = (vm: Vm, which: readonly Link[]): Promise<void> =>
  withMonitor(vm, async (monitor) => {
    for (const link of which) await setCable(monitor, link, true)
  })

const look = async (vm: Vm): Promise<Record<Link, Seen>> =>
  seen(await withGuest(vm, (guest) => shell(guest, looking)))

const whole = ({ carrier, lease, ruled }: Seen): boolean => carrier && !lease && !ruled

async function forget(host: string, gone: Fault[]): Promise<void> {
  const ids = new Set(gone.map(({ id }) => id))
  await withFaults([host], () =>
    recordFaults(
      host,
      readableFaults(host).filter(({ id }) => !ids.has(id)),
    ),
  )
}

function taken(request: Request, vm: Vm, why: string): Failure {
  const { kind, link } = request
  return new Failure(`Cannot inject ${kind} on ${link} of \`${vm.host}\`: ${why}`, {
    hint: 'tsx tasks/chaos-network.ts heal',
  })
}

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
 * Injects a fault and returns as soon as it is at work: one record for each VM. It heals itself when
 * its lease is over, whatever becomes of this task. Links are measured first, so that what is seen
 * later is the fault's doing.
 * @throws Failure when a link does not work, or has a fault already
 */
export async function inject(request: Request): Promise<Fault[]> {
  const vms = request.hosts.map(theVm)
  const hosts = vms.toSorted((a, b) => a.slot - b.slot).map(({ host }) => host)
  return withFaults(hosts, async () => {
    const id = `f${randomBytes(4).toString('hex')}`
    const faults = await Promise.all(vms.map((vm) => prepare(id, request, vm)))
    // a partition is measured on both sides before either has it
    await allOrNothing(faults, (fault) => put(fault, request.lease))
    return faults
  })
}

/** Whether a fault is as it was asked for, by real packets. @returns one line for each of its VMs */
export async function prove(faults: Fault[]): Promise<Proof> {
  const proof = await measure(faults)
  const over = faults.find((fault) => Date.now() >= fault.until)
  if (!over) return proof
  return {
    holds: false,
    text: `${proof.text}; the lease of ${faultName(over)} ended while it was measured`,
  }
}

/** What a VM has, by its record and by itself. */
export interface Listed {
  host: string
  link: Link
  name: string
  /** `unrecorded` is a fault that the guest has and no record knows; `unconfirmed`: it cannot be asked. */
  state: 'active' | 'unrecorded' | 'unconfirmed'
  left: number
}

/**
 * The faults of a VM, each as the guest itself confirms it. A record of one that the guest no longer
 * has, as after a snapshot was loaded, is dropped.
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
 * Heals a VM's links whatever is recorded of them, and waits until they work as before.
 * @returns one line for each link that had a fault, or that was found to have one
 * @throws Failure when something is left; it says when that heals itself
 */
export async function heal(vm: Vm, which: readonly Link[] = links): Promise<string[]> {
  return withFaults([vm.host], async () => {
    const recorded = readableFaults(vm.host)
    const mine = recorded.filter(({ link }) => which.includes(link))
    const rest = recorded.filter(({ link }) => !which.includes(link))
    if (!qemuOf(vm)) {
      // nothing is left of what a guest's kernel did; a cable that is pulled is the record's alone
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
 * For whoever puts a VM back to a snapshot: what its guest's kernel did is not in there, and what is
 * recorded ends with it. Costs nothing where nothing is recorded.
 */
export async function endFaults(vm: Vm): Promise<void> {
  if (!existsSync(faultFile(vm.host))) return
  await withFaults([vm.host], async () => {
    recordFaults(vm.host, [])
    // one that just ends, as when its guest reboots, takes its cables with it
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

/** Puts a fault in; recorded as wanted before and as active after. */
async function put(fault: Fault, lease: number): Promise<void> {
  const vm = theVm(fault.host)
  const cable = kindOf(fault.kind).cable
  // what is over goes, and what a snapshot took away from this very link
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

/** Does the work for each side; when it fails for one, none keeps it. */
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

/** The keeper does the same within a moment; this is for a VM that has lost its keeper. */
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

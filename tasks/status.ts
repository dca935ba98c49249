import { existsSync, lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { attempt, explain, onFailure } from '../lib/failure.ts'
import { faultName, secondsLeft } from '../lib/fault/fault.ts'
import { activeFaults } from '../lib/fault/record.ts'
import { chooseVms } from '../lib/nix/hosts.ts'
import { generationOf, type Generation } from '../lib/vm/generation.ts'
import { sshLine } from '../lib/vm/identity.ts'
import { table } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'
import { inLab } from '../lib/settings.ts'
import { abandonedCopies, copies, titleInCopy, type Copy } from '../lib/vm/copies.ts'
import type { Identity } from '../lib/process.ts'
import { standsStill } from '../lib/vm/snapshot.ts'
import { files, keepersOf, knownVms, qemuOf, readVm, type Vm } from '../lib/vm/vm.ts'

export const name = 'status'
export const describe =
  'Show each VM: whether it runs, its generation, its faults, its disk, how to reach it'
export const usage = '[host..]'
export const positionals = { host: { describe: 'VMs; default: all', array: true } }
export const options = {
  json: { type: 'boolean', describe: 'Print data instead of a table' },
} as const
export const under = [
  'reads <LAB_HOME>/vms/<host>/{vm,qemu,faults}.json and /proc; the same in <LAB_HOME>/copies/<n>',
  'QEMU guest agent   which generation runs, within 5 s',
]
export const examples: [string, string][] = [
  ['just status', 'All VMs'],
  ['tsx tasks/status.ts sorrow --json', 'One VM, as data'],
]

/** Seconds within which a guest must answer; all are asked in parallel. */
const limit = 5

type State = 'stopped' | 'running' | 'unattended' | 'paused'

export async function run(args: Args): Promise<void> {
  const vms = chooseVms(args['host'])
  const all = await Promise.all([
    ...vms.map((vm) => describeVm(vm)),
    ...copies().flatMap((copy) => vmsOfCopy(copy, args['host'])),
  ])
  const found = all.toSorted((a, b) => (a.copy ?? 0) - (b.copy ?? 0))
  if (args['json']) console.log(JSON.stringify(found, null, 2))
  else if (found.length === 0) console.log('There is no VM. just lab makes and verifies two')
  else {
    const rows = found.map((vm) => [
      ...[titleOf(vm), stateCell(vm), vm.guest, ...generationCells(vm), faultCell(vm.faults)],
      ...[size(vm.diskTaken), String(vm.pid ?? '')],
    ])
    const head = [
      'host',
      'state',
      'guest',
      'generation',
      'golden',
      'trial',
      'faults',
      'disk',
      'pid',
    ]
    console.log(table([head, ...rows]))
    for (const { host, state, silent, copy } of found) {
      // a copy is managed by its run
      if (copy !== undefined) continue
      if (state === 'unattended')
        console.log(`${host} has lost its keeper: just deploy-test-vm ${host}`)
      if (state === 'paused')
        console.log(
          `${host} is paused: just deploy-test-vm ${host} resumes it, unless a task is working with it`,
        )
      else if (silent) console.log(`${silent}: just screenshot ${host} shows its screen`)
    }
    for (const { number } of await abandonedCopies())
      console.log(`copy ${number} was left by a killed run: just down ends and deletes it`)
    for (const { fault, left } of found.flatMap(({ faults }) => faults))
      console.log(`fault: ${fault}, heals itself in ${left} s`)
    for (const { state, ssh } of found) if (state !== 'stopped') console.log(ssh)
  }
}

type Described = Awaited<ReturnType<typeof describeVm>>

/** The VMs of a run's copy, which have the names of the hosts that they are copies of. */
const vmsOfCopy = ({ number, home }: Copy, hosts: string[] = []): Promise<Described>[] =>
  inLab(home, () =>
    knownVms()
      .filter((host) => hosts.length === 0 || hosts.includes(host))
      .flatMap((host) => readVm(host) ?? [])
      .map((vm) => describeVm(vm, number)),
  )

const titleOf = ({ host, copy }: Described): string =>
  copy === undefined ? host : titleInCopy(host, { number: copy })

async function describeVm(vm: Vm, copy?: number) {
  const qemu = qemuOf(vm)
  const nothing: Said = {}
  const [state, said] = await Promise.all([stateOf(vm, qemu), qemu ? asked(vm) : nothing])
  const { host, uuid, guest, port, user, toplevel, openUplink = false } = vm
  const { dir, serial } = files(host)
  return {
    host,
    // the number of the copy; undefined for the lab's own VMs
    copy,
    state,
    pid: qemu?.pid,
    port,
    ssh: sshLine(host),
    user,
    openUplink,
    guest,
    uuid,
    toplevel,
    ...said,
    dir,
    serial,
    diskTaken: taken(dir),
    faults: faultsOf(vm),
  }
}

/**
 * `unattended` is a running VM without a keeper, which nothing would start again after a reboot. `paused` is a VM with
 * stopped CPUs, as after a task was killed while it copied the VM.
 */
async function stateOf(vm: Vm, qemu: Identity | undefined): Promise<State> {
  if (!qemu) return 'stopped'
  // a QEMU that does not answer is not counted as paused
  if (await standsStill(vm, limit).catch(onFailure(() => false))) return 'paused'
  return keepersOf(vm).length > 0 ? 'running' : 'unattended'
}

interface Said {
  generation?: Generation
  silent?: string
}

/** The generation that the guest reports, or why it does not answer. */
const asked = (vm: Vm): Promise<Said> =>
  generationOf(vm, limit).then(
    (generation) => ({ generation }),
    onFailure(({ message }) => ({ silent: message })),
  )

function generationCells({ state, generation }: Described): string[] {
  if (!generation) return [state === 'stopped' ? '' : 'no answer', '', '']
  const { number, commit, golden, trial } = generation
  const cell = `${number ?? 'not in the profile'} ${commit?.slice(0, 12) ?? '(no commit)'}`
  return [cell, golden ? 'yes' : 'no', { running: 'yes', next: 'next boot' }[trial!] ?? 'no']
}

const stateCell = ({ state, openUplink }: { state: State; openUplink: boolean }): string =>
  openUplink && state !== 'stopped' ? `${state}, uplink open` : state

const faultCell = (faults: object[]): string => (faults.length > 0 ? String(faults.length) : 'none')

/**
 * Bytes that the files of a VM take, without holes and without files that VMs share. 0 if the VM is deleted
 * meanwhile, as a copy is at the end of its run.
 */
export function taken(dir: string): number {
  if (!existsSync(dir)) return 0
  const entries = readdirSync(dir, { recursive: true, encoding: 'utf8' })
  const blocks = entries.map(
    (entry) => lstatSync(join(dir, entry), { throwIfNoEntry: false })?.blocks ?? 0,
  )
  return blocks.reduce((sum, each) => sum + each, 0) * 512
}

const size = (bytes: number): string =>
  bytes < 1024 ** 3
    ? `${Math.ceil(bytes / 1024 ** 2)} MiB`
    : `${(bytes / 1024 ** 3).toFixed(1)} GiB`

function faultsOf(vm: Vm): { fault: string; left: number }[] {
  const now = Date.now()
  const active = attempt(
    () => activeFaults(vm, now),
    (failure) => {
      // print the table even if the faults cannot be read
      process.stderr.write(`${explain(name, failure)}\n`)
      return []
    },
  )
  return active.map((fault) => ({ fault: faultName(fault), left: secondsLeft(fault, now) }))
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

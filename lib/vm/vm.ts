import { randomUUID } from 'node:crypto'
import { existsSync, lstatSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { attempt, Failure } from '../failure.ts'
import { lock, locked, type Lock } from '../lock.ts'
import { suggest } from '../nearest.ts'
import { alive, processesOf, type Identity } from '../process.ts'
import { labHome, socketDir, type GuestKind } from '../settings.ts'
import { writeFile } from '../write-file.ts'

/** The record of a VM, `vm.json`; replaced atomically, by rename. */
export interface Vm {
  host: string
  uuid: string
  /** See `freeSlot`. */
  slot: number
  guest: GuestKind
  /** Port on 127.0.0.1 that QEMU forwards to the guest's sshd. */
  port: number
  memory: number
  cpus: number
  disk: number
  user: string
  /** Store path of the toplevel that the disk was made from, or that the lab last switched to. */
  toplevel: string
  /** Path of the image below the VM's own overlay. */
  layer: string
  /** Whether disko made its disk. */
  disko?: boolean
  /** Whether its uplink reaches the internet. */
  openUplink?: boolean
  /** Whether its user has the clones that `subscribe` makes; a new disk has none. */
  subscribed?: boolean
  /** Whether everything that its first boot and its last switch wrote is known to be on its disk. */
  settled?: boolean
  /** For a copy: the snapshot that it starts from and that its disks are overlays on. */
  frozen?: Frozen
}

/** The part of a record that its VM's processes are found by. */
export type WhichVm = Pick<Vm, 'host' | 'uuid'>

/** A snapshot moved out of the disks in which it was taken; see `freeze`. */
export interface Frozen {
  tag: string
  dir: string
}

/** The record of a running QEMU, `qemu.json`, with which the keeper starts it again. */
export interface Running extends Identity {
  argv: string[]
}

const dirOf = (host: string): string => join(labHome(), 'vms', host)
const runningIn = (host: string): string => join(dirOf(host), 'qemu.json')

/**
 * The paths of a VM's files. Its sockets are in a separate directory with a shorter path.
 * @param argv arguments of a QEMU other than the one that runs
 */
export function files(host: string, argv = argvOf(host)) {
  const dir = dirOf(host)
  const run = socketsIn(argv) ?? socketDir(host)
  return {
    dir,
    record: join(dir, 'vm.json'),
    running: runningIn(host),
    lock: join(dir, 'lock'),
    disk: join(dir, 'disk.qcow2'),
    vars: join(dir, 'vars.qcow2'),
    hostKey: join(dir, 'ssh_host_ed25519_key'),
    credential: join(dir, 'tmpfiles.extra'),
    serial: join(dir, 'serial.log'),
    qemuLog: join(dir, 'qemu.log'),
    events: join(dir, 'events.jsonl'),
    run,
    qmp: join(run, 'qmp'),
    keeperQmp: join(run, 'keeper'),
    agent: join(run, 'qga'),
    console: join(run, 'console'),
  }
}

/** The recorded arguments of the QEMU that runs. */
function argvOf(host: string): string[] | undefined {
  const recorded = runningOf(host)
  return alive(recorded) ? recorded.argv : undefined
}

/**
 * The directory of QEMU's sockets, from its arguments, because a shell with another TMPDIR, or without
 * XDG_RUNTIME_DIR, would look for them elsewhere.
 */
export function socketsIn(argv: string[] = []): string | undefined {
  const found = argv.map((arg) => /^socket,id=keeper,path=(.*)\/keeper,/.exec(arg)?.[1])
  return found.find(Boolean)?.replaceAll(',,', ',')
}

/** The record of a VM's QEMU, if it can be read; `qemuOf` finds QEMU without it too. */
export const runningOf = (host: string): Running | undefined =>
  readableJson<Running>(runningIn(host))

/** Hosts that have a VM directory, whatever its state. */
export function knownVms(): string[] {
  const dir = join(labHome(), 'vms')
  if (!existsSync(dir)) {
    refuseOddHome()
    return []
  }
  return readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(files(entry.name).record))
    .map((entry) => entry.name)
    .toSorted()
}

/** A typing error in LAB_HOME must not look like a lab without VMs. */
function refuseOddHome(): void {
  const home = labHome()
  const there = lstatSync(home, { throwIfNoEntry: false })
  if (!there || statSync(home, { throwIfNoEntry: false })?.isDirectory()) return
  const what = there.isSymbolicLink() ? 'a symlink that leads to no directory' : 'not a directory'
  throw new Failure(`Cannot use \`${home}\`: it is ${what}`, {
    hint: 'Set LAB_HOME to a directory of your own',
  })
}

/**
 * The record of a VM, or undefined when there is none.
 * @throws Failure when the file is not a record
 */
export function readVm(host: string): Vm | undefined {
  const vm = readJson<Vm>(files(host).record)
  if (vm && (vm.host !== host || !/^[0-9a-f-]{36}$/.test(vm.uuid) || !Number.isInteger(vm.port))) {
    throw damaged(files(host).record, host)
  }
  return vm
}

/** The record of a VM. @throws Failure, with the command that makes it, when the VM does not exist */
export function theVm(host: string): Vm {
  const vm = readVm(host)
  if (vm) return vm
  const near = suggest(host, knownVms())
  throw new Failure(`Cannot find a VM \`${host}\``, {
    hint: `${near}just status lists them, just deploy-test-vm ${host} makes it`,
  })
}

/** Writes the record of a VM. */
export function writeVm(vm: Vm): void {
  writeJson(files(vm.host).record, vm)
}

/** Makes the VM's directories and takes its lock. */
export async function lockVm(host: string, what: string): Promise<Lock> {
  privateDirectory(labHome())
  privateDirectory(join(labHome(), 'vms'))
  privateDirectory(files(host).dir)
  privateDirectory(dirname(files(host).run))
  privateDirectory(files(host).run)
  return await lock(files(host).lock, `${what} \`${host}\``)
}

/** Runs `work` with the locks of these VMs, so that no other task uses them. @param what verb for messages */
export const withVms = <T>(hosts: string[], what: string, work: () => T | Promise<T>): Promise<T> =>
  locked(
    hosts.map((host) => () => lockVm(host, what)),
    work,
  )

/**
 * The QEMU process of a VM: the recorded one when it is alive, else one found by the VM's UUID, as a
 * task may have been killed before it could write the record.
 */
export function qemuOf(vm: WhichVm): Identity | undefined {
  const recorded = runningOf(vm.host)
  if (alive(recorded)) return recorded
  return processesOf(vm.uuid).find((found) => found.program.startsWith('qemu-system'))
}

/** Whether a VM of that name exists and its QEMU runs. */
export function isRunning(host: string): boolean {
  const vm = readVm(host)
  return vm !== undefined && qemuOf(vm) !== undefined
}

/** Whether a VM has its disk and its EFI variables. */
export const hasDisk = (host: string): boolean =>
  readVm(host) !== undefined && existsSync(files(host).disk) && existsSync(files(host).vars)

/** The keepers of a VM: none, one, or for a moment two. Some distributions call the program `node-22`. */
export const keepersOf = (vm: WhichVm): Identity[] =>
  processesOf(vm.uuid).filter((found) => found.program === basename(process.execPath))

export const newUuid = (): string => randomUUID()

/**
 * MAC addresses of the three NICs. The guest tells them apart by the fourth byte; the last byte is the
 * VM's slot, from which the guest derives its address on lan (10.0.4.<slot>).
 */
export function macs(slot: number): { mgmt: string; uplink: string; lan: string } {
  const tail = slot.toString(16).padStart(2, '0')
  const mac = (nic: number): string => `52:54:00:0${nic}:00:${tail}`
  return { mgmt: mac(1), uplink: mac(2), lan: mac(3) }
}

/**
 * A number from 1 to 254 that no other VM of this `LAB_HOME` has. sorrow gets 1 and torment gets 2,
 * because their ports 2222 and 2223 are documented.
 */
export function freeSlot(host: string): number {
  const promised: Record<string, number> = { sorrow: 1, torment: 2 }
  const taken = new Set(
    knownVms()
      .filter((other) => other !== host)
      .map((other) => readVm(other)?.slot),
  )
  const wanted = promised[host] ?? 3
  for (let slot = wanted; slot < 255; slot++) if (!taken.has(slot)) return slot
  throw new Failure(`Cannot make a VM for \`${host}\`: there are ${taken.size} already`)
}

/**
 * Chooses the slot of a new VM and records the VM, under a lock: two VMs that are made at the same time, by one task
 * or two, could otherwise choose the same slot.
 */
export async function recordVm(host: string, made: (slot: number) => Vm): Promise<Vm> {
  const place = join(labHome(), 'vms', '.lock')
  return locked([() => lock(place, `record \`${host}\``, { wait: 60 })], () => {
    const vm = made(readVm(host)?.slot ?? freeSlot(host))
    writeVm(vm)
    return vm
  })
}

/** Like `readJson`, but undefined when the file holds no JSON: for data that can be found out again. */
export const readableJson = <T>(path: string): T | undefined =>
  attempt(
    () => readJson<T>(path),
    () => undefined,
  )

/** @throws Failure when the file holds no JSON, as after another program wrote it to a full disk */
export function readJson<T>(path: string): T | undefined {
  if (!existsSync(path)) return undefined
  if (lstatSync(path).isSymbolicLink()) {
    throw new Failure(`Cannot use \`${path}\`: it is a symlink`, { hint: 'Remove it' })
  }
  try {
    const found = JSON.parse(readFileSync(path, 'utf8')) as T | null
    if (found !== null) return found
  } catch {
    // not JSON, or a directory
  }
  throw damaged(path, path.split('/').at(-2) ?? '')
}

/** Writes a record atomically. */
export const writeJson = (path: string, value: unknown): void =>
  writeFile(path, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600, over: 'any' })

const damaged = (path: string, host: string): Failure =>
  new Failure(`Cannot read \`${path}\`: it is not a record of the lab`, {
    hint: `just destroy-test-vm ${host} removes the VM`,
  })

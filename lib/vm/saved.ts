import { join } from 'node:path'
import { endFaults } from '../fault/lease.ts'
import { Failure, onFailure, usage } from '../failure.ts'
import { suggest } from '../nearest.ts'
import { withFreePort } from './port.ts'
import { argsNow, opensUplink, stopVm } from './qemu.ts'
import {
  deleteSnapshot,
  putBack,
  saveSnapshot,
  setClock,
  snapshotOff,
  snapshotsOf,
} from './snapshot.ts'
import {
  files,
  keepersOf,
  qemuOf,
  readJson,
  runningOf,
  socketsIn,
  writeJson,
  writeVm,
  type Vm,
} from './vm.ts'

/** A VM as somebody kept it under a name: a snapshot in its own disks, and what fits to it. */
export interface Saved extends Pick<Vm, 'toplevel' | 'memory' | 'cpus'> {
  tag: string
  /** ISO 8601. */
  at: string
  /** QEMU's arguments; undefined for a VM that was off, of which its disks are all that there is. */
  argv?: string[]
}

/** Tags of scenarios begin otherwise. */
const prefix = 'saved-'

/** Seconds for a job of QEMU's, which writes or reads a guest's whole memory. */
const limit = 300

const recordOf = (host: string): string => join(files(host).dir, 'saved.json')

const recorded = (host: string): Record<string, Saved> => readJson(recordOf(host)) ?? {}

/** What is saved of a VM, by name, the newest first; a disk made anew has none of it. */
export async function savedOf(vm: Vm): Promise<Map<string, Saved>> {
  const all = Object.entries(recorded(vm.host))
  const tags = all.length > 0 ? await snapshotsOf(vm) : []
  const there = all.filter(([, { tag }]) => tags.includes(tag))
  return new Map(there.toSorted(([, a], [, b]) => b.at.localeCompare(a.at)))
}

/**
 * The name, if something can be saved under it.
 * @throws Failure (usage)
 */
export function savedName(name: string): string {
  if (/^[a-zA-Z0-9][\w.-]{0,40}$/.test(name)) return name
  throw usage(`Cannot save under the name \`${name}\``, 'Write up to 41 letters, digits, - _ or .')
}

/**
 * Keeps a VM as it is now, on or off. What had the name is deleted last, so that a disk that is full or a
 * kill leaves the one or the other.
 * @throws Failure when there is no room
 */
export async function save(vm: Vm, name: string): Promise<Saved> {
  const running = qemuOf(vm) ? runningOf(vm.host) : undefined
  const why = running ? undefined : unsteady(vm)
  if (why) throw new Failure(`Cannot save \`${vm.host}\`: ${why}`)
  const { host, toplevel, memory, cpus } = vm
  const tag = `${prefix}${name}-${Date.now().toString(36)}`
  const saved: Saved = { tag, at: new Date().toISOString(), toplevel, memory, cpus }
  if (running) {
    saved.argv = running.argv
    await saveSnapshot(vm, tag, limit)
  } else await snapshotOff(vm, 'save', tag)
  writeJson(recordOf(host), { ...recorded(host), [name]: saved })
  await dropUnnamed(vm)
  return saved
}

/** @throws Failure (usage) when nothing is saved under that name */
export async function remove(vm: Vm, name: string): Promise<void> {
  await find(vm, name)
  const { [name]: _, ...others } = recorded(vm.host)
  writeJson(recordOf(vm.host), others)
  await dropUnnamed(vm)
}

export interface PutBack {
  saved: Saved
  /** Whether its guest knows what time it is. */
  clock: boolean
}

/**
 * Puts a VM back, on or off as it was when it was saved; what it was until now is gone.
 * @throws Failure (usage) when nothing is saved under that name, CannotLoad when QEMU cannot load it: the
 *   VM is off then
 */
export async function restore(vm: Vm, name: string): Promise<PutBack> {
  const saved = await find(vm, name)
  const { tag, toplevel, memory, cpus } = saved
  await endFaults(vm)
  if (!saved.argv) {
    await stopVm(vm, 0)
    await snapshotOff(vm, 'load', tag)
    writeVm({ ...vm, toplevel, memory, cpus })
    return { saved, clock: false }
  }
  const { port } = await withFreePort(vm)
  const argv = argsNow(saved.argv, { ...vm, port }, socketsIn(saved.argv) ?? files(vm.host).run)
  await putBack(vm, tag, argv, limit)
  writeVm({ ...vm, port, toplevel, memory, cpus, openUplink: opensUplink(argv) })
  const clock = await setClock(vm, 10).then(
    () => true,
    // it may have been saved before its agent was there, as in a boot that hangs
    onFailure(() => false),
  )
  return { saved, clock }
}

async function find(vm: Vm, name: string): Promise<Saved> {
  const all = await savedOf(vm)
  const found = all.get(name)
  if (found) return found
  const names = [...all.keys()]
  throw usage(
    `Cannot find anything saved of \`${vm.host}\` as \`${name}\``,
    names.length > 0
      ? `${suggest(name, names.length > 6 ? names : [])}saved are ${names.join(', ')}`
      : `Nothing is saved of it: just save ${vm.host} ${name}`,
  )
}

/** Deletes the snapshots of ours that no name leads to: replaced, removed, or of a save that was killed. */
async function dropUnnamed(vm: Vm): Promise<void> {
  const named = Object.values(recorded(vm.host)).map(({ tag }) => tag)
  for (const tag of await snapshotsOf(vm)) {
    if (!tag.startsWith(prefix) || named.includes(tag)) continue
    if (qemuOf(vm)) await deleteSnapshot(vm, tag, limit)
    else await snapshotOff(vm, 'drop', tag)
  }
}

/** Why a VM without a record of its QEMU is not simply off, if it is not. */
function unsteady(vm: Vm): string | undefined {
  if (qemuOf(vm)) return `the record of its QEMU is gone; just down ${vm.host} ends it`
  return keepersOf(vm).length > 0 ? 'it is just rebooting' : undefined
}

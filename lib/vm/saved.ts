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

/** A VM saved under a name: a snapshot in its own disks, and the VM's settings that belong to it. */
export interface Saved extends Pick<Vm, 'toplevel' | 'memory' | 'cpus'> {
  tag: string
  /** ISO 8601. */
  at: string
  /** QEMU's arguments; undefined for a VM that was off, of which only the disks were saved. */
  argv?: string[]
}

/** Tags of scenarios have other prefixes. */
const prefix = 'saved-'

/** Seconds for one of QEMU's jobs, which writes or reads a guest's whole memory. */
const limit = 300

const recordOf = (host: string): string => join(files(host).dir, 'saved.json')

const recorded = (host: string): Record<string, Saved> => readJson(recordOf(host)) ?? {}

/** The saved states of a VM by name, newest first. Skips those that are not in its disk, as after it was made anew. */
export async function savedOf(vm: Vm): Promise<Map<string, Saved>> {
  const all = Object.entries(recorded(vm.host))
  const tags = all.length > 0 ? await snapshotsOf(vm) : []
  const there = all.filter(([, { tag }]) => tags.includes(tag))
  return new Map(there.toSorted(([, a], [, b]) => b.at.localeCompare(a.at)))
}

/** Checks a name for a saved state and returns it. @throws Failure (usage) when it is not allowed */
export function savedName(name: string): string {
  if (/^[a-zA-Z0-9][\w.-]{0,40}$/.test(name)) return name
  throw usage(`Cannot save under the name \`${name}\``, 'Write up to 41 letters, digits, - _ or .')
}

/**
 * Saves a VM as it is now, on or off. The state that had the name before is deleted last, so that a full
 * disk or a kill leaves either the old or the new one.
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
  /** Whether its guest's clock was set; false for a VM that is off. */
  clock: boolean
}

/**
 * Restores a saved VM, on or off as it was when it was saved; its present state is lost.
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
    // it may have been saved before its agent ran, as in a boot that hangs
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

/** Deletes saved snapshots that no name refers to: replaced, removed, or left by a killed save. */
async function dropUnnamed(vm: Vm): Promise<void> {
  const named = Object.values(recorded(vm.host)).map(({ tag }) => tag)
  for (const tag of await snapshotsOf(vm)) {
    if (!tag.startsWith(prefix) || named.includes(tag)) continue
    if (qemuOf(vm)) await deleteSnapshot(vm, tag, limit)
    else await snapshotOff(vm, 'drop', tag)
  }
}

/** Why a VM without a record of its QEMU cannot be saved as off; undefined when it is off. */
function unsteady(vm: Vm): string | undefined {
  if (qemuOf(vm)) return `the record of its QEMU is gone; just down ${vm.host} ends it`
  return keepersOf(vm).length > 0 ? 'it is just rebooting' : undefined
}

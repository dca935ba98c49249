import { statfsSync } from 'node:fs'
import { Failure } from '../failure.ts'
import { programPath, withGuest, type GuestAgent } from './guest-agent.ts'
import { ensureKeeper, startQemu, stopVm } from './qemu.ts'
import { thaw } from './frozen.ts'
import { CannotLoad, loadPaused, parts, withMonitor } from './monitor.ts'
import { runJob, type Qmp } from './qmp.ts'
import { waitFor } from '../retry.ts'
import { run } from '../run.ts'
import { files, keepersOf, qemuOf, type Vm } from './vm.ts'

/**
 * Takes a snapshot of a running VM, replacing one of that name. The VM is paused meanwhile (0.7 s if it
 * uses 200 MiB). A save that is killed leaves no snapshot of that name, because QEMU enters it into the
 * images' tables last.
 * @param limit seconds
 * @throws Failure when there is no room for it; the VM continues
 */
export async function saveSnapshot(vm: Vm, tag: string, limit: number): Promise<void> {
  requireRoom(vm)
  await withMonitor(vm, async (monitor) => {
    await otherJobsEnd(monitor, limit)
    if ((await tagsOf(monitor)).includes(tag)) await dropTag(monitor, tag, limit)
    try {
      await runJob(monitor, 'snapshot-save', { tag, ...parts }, limit)
    } catch (thrown) {
      await dropTag(monitor, tag, limit).catch(() => {})
      await monitor.execute('cont').catch(() => {})
      throw thrown
    }
  })
}

/**
 * Resumes a paused VM; a task that is killed while it copies or loads a snapshot leaves it paused.
 * @returns whether it was paused
 */
export const goOn = (vm: Vm): Promise<boolean> =>
  withMonitor(vm, async (monitor) => {
    if (!(await waits(monitor))) return false
    await monitor.execute('cont')
    return true
  })

/**
 * Whether a VM is paused: while a task copies it, or until it is resumed if that task was killed.
 * @param limit seconds
 */
export const standsStill = (vm: Vm, limit: number): Promise<boolean> =>
  withMonitor(vm, waits, limit)

async function waits(monitor: Qmp): Promise<boolean> {
  // also false in `prelaunch`, before a snapshot is loaded, and `io-error`, when the host's disk was full
  const { running } = await monitor.execute<{ running: boolean }>('query-status')
  return !running
}

/**
 * Restores a VM to a snapshot, whatever state it is in. Afterwards every connection into it is stale. Sets the
 * guest's clock, which would otherwise continue from when the snapshot was taken.
 * @param argv QEMU's arguments as when the snapshot was taken
 * @param limit seconds
 * @throws Failure when QEMU cannot load it; the VM is off then, because its state would be unknown. A running VM
 *   without such a snapshot keeps running
 */
export async function restoreSnapshot(
  vm: Vm,
  tag: string,
  argv: string[],
  limit: number,
): Promise<void> {
  await putBack(vm, tag, argv, limit)
  await setClock(vm, limit)
}

/** The same, but the guest's clock continues from when the snapshot was taken. */
export async function putBack(vm: Vm, tag: string, argv: string[], limit: number): Promise<void> {
  const load = (): Promise<true | undefined> => loadSnapshot(vm, tag, argv, limit)
  // a guest that is just rebooting may end QEMU during a try, and its keeper then starts it again
  const final = (failure: unknown): boolean => failure instanceof CannotLoad
  await waitFor(`\`${vm.host}\` to be put back`, limit, load, { every: 0.2, final })
  ensureKeeper(vm)
}

/**
 * One try of `putBack`. Starts a new QEMU, because the cycle counter (TSC) of an emulated CPU never goes back within
 * a process (QEMU's `cpu_get_ticks`): a guest loaded into the running QEMU would see minutes pass in an instant. Its
 * kernel would report a stall and sometimes hang.
 * @returns undefined while no QEMU runs and the keeper is about to start one
 * @throws CannotLoad when another try is useless
 */
export async function loadSnapshot(
  vm: Vm,
  tag: string,
  argv: string[],
  limit: number,
): Promise<true | undefined> {
  const { frozen } = vm
  if (frozen?.tag === tag) {
    await thaw(vm, frozen, argv, limit)
    return true
  }
  const required = async (monitor: Qmp): Promise<void> => {
    await otherJobsEnd(monitor, limit)
    if ((await tagsOf(monitor)).includes(tag)) return
    throw new CannotLoad(`\`${vm.host}\` has no snapshot \`${tag}\``)
  }
  if (qemuOf(vm)) {
    await withMonitor(vm, required)
    await stopVm(vm, 0)
    // the guest is rebooting: its keeper has not started the next QEMU yet
  } else if (keepersOf(vm).length > 0) return undefined
  try {
    await startQemu(vm, argv, ['-S'])
    await withMonitor(vm, async (monitor) => {
      await required(monitor)
      await loadPaused(monitor, tag, limit)
      await monitor.execute('cont')
    })
  } catch (thrown) {
    // a half-loaded state is useless
    await stopVm(vm, 0)
    if (thrown instanceof CannotLoad) throw thrown
    throw new CannotLoad(`Cannot put \`${vm.host}\` back to its snapshot \`${tag}\``, {
      cause: thrown,
      evidence: (thrown as Error).message,
    })
  }
  return true
}

/**
 * Sets the guest's clock to the host's with a command through the agent, as `guest-set-time` would need hwclock.
 * @param limit seconds
 * @throws Failure when no agent answers
 */
export async function setClock(vm: Vm, limit: number): Promise<void> {
  const set = async (guest: GuestAgent): Promise<void> => {
    // the clock is then a tenth of a second late, which is good enough here
    const now = (Date.now() / 1000).toFixed(1)
    await guest.exec('/bin/sh', ['-c', `${programPath}; date -s @${now}`], { timeout: limit })
  }
  await withGuest(vm, set, limit)
}

/** Names of the snapshots of a VM, running or off. */
export async function snapshotsOf(vm: Vm): Promise<string[]> {
  return qemuOf(vm) ? withMonitor(vm, tagsOf) : snapshotsIn(files(vm.host).disk)
}

/** Names of the snapshots in an image that no QEMU has open. */
export async function snapshotsIn(image: string): Promise<string[]> {
  const { stdout } = await run('qemu-img', ['info', '--output=json', image])
  const { snapshots = [] } = JSON.parse(stdout) as { snapshots?: { name: string }[] }
  return snapshots.map(({ name }) => name)
}

/** Deletes a snapshot of a running VM. @param limit seconds */
export async function deleteSnapshot(vm: Vm, tag: string, limit: number): Promise<void> {
  await withMonitor(vm, (monitor) => dropTag(monitor, tag, limit))
}

/**
 * For a VM that is off, whose snapshots hold only the disks: saves a snapshot, replacing one of that name,
 * loads it, or drops it.
 * @throws CannotLoad when there is none of that name, Failure when a disk cannot be written
 */
export async function snapshotOff(
  vm: Vm,
  what: 'save' | 'load' | 'drop',
  tag: string,
): Promise<void> {
  const { disk, vars } = files(vm.host)
  const images = [disk, vars]
  const on = (flag: string, allow: number[] = []) =>
    Promise.all(images.map((image) => run('qemu-img', ['snapshot', flag, tag, image], { allow })))
  if (what === 'drop') await on('-d', [1])
  if (what === 'save') {
    await on('-d', [1])
    await on('-c')
  }
  if (what !== 'load') return
  for (const { code, stderr } of await on('-a', [1])) {
    if (code !== 0) throw new CannotLoad(`Cannot put \`${vm.host}\` back`, { evidence: stderr })
  }
}

interface Node {
  'node-name': string
  image?: { snapshots?: { name: string }[] }
}

/** Names of the snapshots in the disk that also stores the memory, without which a snapshot is incomplete. */
async function tagsOf(monitor: Qmp): Promise<string[]> {
  const nodes = await monitor.execute<Node[]>('query-named-block-nodes', { flat: true })
  const disk = nodes.find((node) => node['node-name'] === parts.vmstate)
  return disk?.image?.snapshots?.map(({ name }) => name) ?? []
}

const dropTag = (monitor: Qmp, tag: string, limit: number): Promise<void> =>
  runJob(monitor, 'snapshot-delete', { tag, devices: parts.devices }, limit)

/** Waits for jobs of killed tasks, which QEMU still finishes. */
async function otherJobsEnd(monitor: Qmp, limit: number): Promise<void> {
  await waitFor(
    "QEMU's earlier jobs",
    limit,
    async () => {
      const jobs = await monitor.execute<{ status: string }[]>('query-jobs')
      return jobs.every(({ status }) => status === 'concluded') || undefined
    },
    { every: 0.2 },
  )
}

/** Refuses a save when the host may lack room: without room for a write, the guest halts. */
function requireRoom(vm: Vm): void {
  const { bavail, bsize } = statfsSync(files(vm.host).dir)
  const free = bavail * bsize
  const needed = Math.min(vm.memory, 1024 ** 3)
  if (free >= needed) return
  throw new Failure(
    `Cannot take a snapshot of \`${vm.host}\`: ${Math.round(free / 1024 ** 2)} MiB are free and its memory may need ${Math.round(needed / 1024 ** 2)}`,
    { hint: 'just destroy-test-vm makes room; so does deleting old runs' },
  )
}

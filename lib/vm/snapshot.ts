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
 * Takes a snapshot of a VM that runs, in place of one of that name. The VM stands still meanwhile
 * (0.7 s where it uses 200 MiB). A save that is cut off by a kill leaves no snapshot of that name:
 * QEMU enters it into the images' tables last.
 * @param limit seconds
 * @throws Failure when there is no room for it; the VM runs on
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
 * Has a VM go on that stands still, as a task leaves it that is killed while it copies or loads a snapshot.
 * @returns whether it stood still
 */
export const goOn = (vm: Vm): Promise<boolean> =>
  withMonitor(vm, async (monitor) => {
    if (!(await waits(monitor))) return false
    await monitor.execute('cont')
    return true
  })

/**
 * Whether a VM stands still: for as long as a task copies it, or for good after one that was killed.
 * @param limit seconds
 */
export const standsStill = (vm: Vm, limit: number): Promise<boolean> =>
  withMonitor(vm, waits, limit)

async function waits(monitor: Qmp): Promise<boolean> {
  // `prelaunch` where a snapshot was to be loaded, `io-error` where the host's disk was full
  const { running } = await monitor.execute<{ running: boolean }>('query-status')
  return !running
}

/**
 * Puts a VM back to its snapshot, whatever state it is in. Every connection into it is stale after it. Sets the
 * guest's clock, which else goes on from when the snapshot was taken.
 * @param argv QEMU's arguments as when the snapshot was taken
 * @param limit seconds
 * @throws Failure when QEMU cannot load it; the VM is off then, as it could be in no known state. One that
 *   runs and has no such snapshot runs on
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

/** The same with the guest's clock left as it is: it goes on from when the snapshot was taken. */
export async function putBack(vm: Vm, tag: string, argv: string[], limit: number): Promise<void> {
  const load = (): Promise<true | undefined> => loadSnapshot(vm, tag, argv, limit)
  // a guest that is just rebooting ends QEMU in the middle, and its keeper starts it again
  const final = (failure: unknown): boolean => failure instanceof CannotLoad
  await waitFor(`\`${vm.host}\` to be put back`, limit, load, { every: 0.2, final })
  ensureKeeper(vm)
}

/**
 * One try of `restoreSnapshot`, the guest's clock left as it is. It takes a new QEMU: the counter of cycles (TSC) of
 * an emulated CPU never goes back within a process (QEMU's `cpu_get_ticks`), so that a guest which is loaded into the
 * one that runs sees minutes pass in an instant. Its kernel complains of a stall then, and now and then it hangs.
 * @returns undefined while neither a QEMU runs nor one may be started
 * @throws CannotLoad when there is no use in another try
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
    // between the end of one QEMU and the start of the next
  } else if (keepersOf(vm).length > 0) return undefined
  try {
    await startQemu(vm, argv, ['-S'])
    await withMonitor(vm, async (monitor) => {
      await required(monitor)
      await loadPaused(monitor, tag, limit)
      await monitor.execute('cont')
    })
  } catch (thrown) {
    // half of a state is none
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
 * Sets the guest's clock to the host's, through the agent: `guest-set-time` would need hwclock.
 * @param limit seconds
 * @throws Failure when no agent answers
 */
export async function setClock(vm: Vm, limit: number): Promise<void> {
  const set = async (guest: GuestAgent): Promise<void> => {
    // the answer comes a tenth of a second later: nothing here needs it better
    const now = (Date.now() / 1000).toFixed(1)
    await guest.exec('/bin/sh', ['-c', `${programPath}; date -s @${now}`], { timeout: limit })
  }
  await withGuest(vm, set, limit)
}

/** Names of the snapshots of a VM, which may be off. */
export async function snapshotsOf(vm: Vm): Promise<string[]> {
  return qemuOf(vm) ? withMonitor(vm, tagsOf) : snapshotsIn(files(vm.host).disk)
}

/** Names of the snapshots in an image that no QEMU has open. */
export async function snapshotsIn(image: string): Promise<string[]> {
  const { stdout } = await run('qemu-img', ['info', '--output=json', image])
  const { snapshots = [] } = JSON.parse(stdout) as { snapshots?: { name: string }[] }
  return snapshots.map(({ name }) => name)
}

/** Deletes a snapshot of a VM that runs. @param limit seconds */
export async function deleteSnapshot(vm: Vm, tag: string, limit: number): Promise<void> {
  await withMonitor(vm, (monitor) => dropTag(monitor, tag, limit))
}

/**
 * The same for a VM that is off, of its disks alone: keeps them under a name, in place of what had it, puts
 * them back, or drops the name.
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

/** Snapshots that the disk has; one without its memory is none. */
async function tagsOf(monitor: Qmp): Promise<string[]> {
  const nodes = await monitor.execute<Node[]>('query-named-block-nodes', { flat: true })
  const disk = nodes.find((node) => node['node-name'] === parts.vmstate)
  return disk?.image?.snapshots?.map(({ name }) => name) ?? []
}

const dropTag = (monitor: Qmp, tag: string, limit: number): Promise<void> =>
  runJob(monitor, 'snapshot-delete', { tag, devices: parts.devices }, limit)

/** A task that was killed leaves its job to QEMU, which finishes it. */
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

/** A save that runs out of room on the host stops the guest in its writes: it is not begun. */
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

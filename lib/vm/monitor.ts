import { Failure } from '../failure.ts'
import { qmp, runJob, type Qmp } from './qmp.ts'
import { files, type Vm } from './vm.ts'

/**
 * One connection for one errand: the monitor serves a single client, and others wait for it.
 * @param timeout seconds to wait for it
 */
export async function withMonitor<T>(
  vm: Vm,
  use: (monitor: Qmp) => Promise<T>,
  timeout = 10,
): Promise<T> {
  const monitor = await qmp(files(vm.host).qmp, { timeout })
  try {
    return await use(monitor)
  } finally {
    monitor.close()
  }
}

/** Memory and both disks: what a VM is. The memory lies in the VM's own disk image. */
export const parts = { vmstate: 'disk0', devices: ['disk0', 'efivars'] }

/** Loads a snapshot that the disks hold; the VM's CPUs wait for `cont` after it. @param limit seconds */
export const loadPaused = (monitor: Qmp, tag: string, limit: number): Promise<void> =>
  runJob(monitor, 'snapshot-load', { tag, ...parts }, limit)

/** The snapshot is not there, or does not fit this QEMU. */
export class CannotLoad extends Failure {}

import { Failure } from '../failure.ts'
import { qmp, runJob, type Qmp } from './qmp.ts'
import { files, type Vm } from './vm.ts'

/**
 * Connects to a VM's monitor for one operation only, because it serves a single client and others wait.
 * @param timeout seconds to wait for the monitor
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

/** What a snapshot contains: memory and both disks. The memory is stored in the VM's own disk image. */
export const parts = { vmstate: 'disk0', devices: ['disk0', 'efivars'] }

/** Loads a snapshot from the disks; the VM stays paused until `cont`. @param limit seconds */
export const loadPaused = (monitor: Qmp, tag: string, limit: number): Promise<void> =>
  runJob(monitor, 'snapshot-load', { tag, ...parts }, limit)

/** The snapshot does not exist, or does not fit this QEMU. */
export class CannotLoad extends Failure {}

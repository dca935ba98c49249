import { renameSync } from 'node:fs'
import type { Firmware } from './firmware.ts'
import { createOverlay } from '../image/qcow2.ts'
import { run } from '../run.ts'
import { files, type Vm } from './vm.ts'

/** Makes a VM's overlay and its own EFI variables, in whose place nothing half-made is ever seen. */
export async function createDisk(vm: Vm, firmware: Firmware): Promise<void> {
  const { disk, vars } = files(vm.host)
  const beside = (path: string): string => `${path}.tmp`
  await createOverlay(vm.layer, beside(disk), vm.disk)
  // qcow2, as a snapshot of the VM includes them
  await run('qemu-img', ['convert', '-O', 'qcow2', firmware.vars, beside(vars)])
  renameSync(beside(vars), vars)
  renameSync(beside(disk), disk)
}

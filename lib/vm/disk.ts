import { renameSync } from 'node:fs'
import type { Firmware } from './firmware.ts'
import { createOverlay } from '../image/qcow2.ts'
import { run } from '../run.ts'
import { files, knownVms, type Vm } from './vm.ts'
import type { Deployment } from './wanted.ts'

/** Makes a VM's overlay and its EFI variables, and moves each to its place only when it is whole. */
export async function createDisk(vm: Vm, firmware: Firmware): Promise<void> {
  const { disk, vars } = files(vm.host)
  const beside = (path: string): string => `${path}.tmp`
  await createOverlay(vm.layer, beside(disk), vm.disk)
  // qcow2, as a snapshot of the VM includes them
  await run('qemu-img', ['convert', '-O', 'qcow2', firmware.vars, beside(vars)])
  renameSync(beside(vars), vars)
  renameSync(beside(disk), disk)
}

/** The image with the host's first generation; the VM's disk is an overlay on it. */
export async function firstGeneration(
  { ground, built, host, size, disko }: Deployment,
  say: (line: string) => void,
): Promise<string> {
  const disk = size.disk ?? 20 * 1024 ** 3
  const { base, store, accelerator } = ground
  if (base) {
    const { ensureHostLayer } = await import('../image/layer.ts')
    return ensureHostLayer(base, { ...built!, host, size: disk, store })
  }
  const { ensureNixosDisk, givenImage } = await import('../image/nixos.ts')
  const given = await givenImage()
  if (given) return given
  if (disko) {
    const { ensureDiskoImage } = await import('../image/disko.ts')
    const wanted = { size: disk, emulated: accelerator.kind === 'tcg' }
    return chosen(await ensureDiskoImage(host, wanted, 3600 * accelerator.patience, say), host)
  }
  const { layout, toplevel } = built!
  if (!layout) throw new Error(`\`${host}\` has no disk that the lab can make`)
  return chosen(await ensureNixosDisk({ host, toplevel, layout, store, size: disk }, say), host)
}

/** Deletes older images of the same kind, except those below a VM's disk. */
async function chosen(image: string, host: string): Promise<string> {
  const { chooseImage } = await import('../image/cache.ts')
  const disks = knownVms().map((each) => files(each).disk)
  await chooseImage(image, files(host).disk, disks)
  return image
}

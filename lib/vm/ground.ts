import { findAccelerator, type Accelerator } from './accelerator.ts'
import { findFirmware, type Firmware } from './firmware.ts'
import { chooseGuest, guestStore, type Guest } from '../nix/guest.ts'
import type { BaseImage } from '../image/base.ts'
import { storeOptions } from '../nix/store.ts'
import { requireTools } from './preflight.ts'
import { labCache } from '../settings.ts'

/** What every VM of the lab stands on; found once per task. */
export interface Ground {
  guest: Guest
  firmware: Firmware
  accelerator: Accelerator
  /** What the embedded guest's disks stand on; NixOS has a disk of its own for each host. */
  base?: BaseImage
  /** nix options that name the store in which toplevels are built. */
  store: string[]
}

/** The tools, the firmware and the accelerator, each proved. @throws Failure */
export async function preflight(
  guest = chooseGuest(),
): Promise<Pick<Ground, 'guest' | 'firmware' | 'accelerator'>> {
  requireTools(guest.kind)
  const firmware = findFirmware()
  return { guest, firmware, accelerator: await findAccelerator(firmware) }
}

/** The base image, built when it is not cached, and its store; for NixOS the store alone. @throws Failure */
export async function baseImage(
  say: (line: string) => void,
  guest = chooseGuest(),
): Promise<Pick<Ground, 'base' | 'store'>> {
  if (guest.kind === 'nixos') return { store: guestStore(guest) }
  const { ensureBaseImage } = await import('../image/image.ts')
  const base = await ensureBaseImage({ cache: labCache(), onProgress: say })
  return { base, store: storeOptions(base) }
}

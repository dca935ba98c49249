import { findAccelerator, type Accelerator } from './accelerator.ts'
import { findFirmware, type Firmware } from './firmware.ts'
import { chooseGuest, guestStore, type Guest } from '../nix/guest.ts'
import type { BaseImage } from '../image/base.ts'
import { storeOptions } from '../nix/store.ts'
import { requireTools } from './preflight.ts'
import { labCache } from '../settings.ts'

/** What all VMs of the lab need; found once per task. */
export interface Ground {
  guest: Guest
  firmware: Firmware
  accelerator: Accelerator
  /** The image below the embedded guest's disks; each NixOS host has an image for itself. */
  base?: BaseImage
  /** nix options that name the store in which toplevels are built. */
  store: string[]
}

/** Checks for the tools, and finds the firmware and the accelerator. @throws Failure */
export async function preflight(
  guest = chooseGuest(),
): Promise<Pick<Ground, 'guest' | 'firmware' | 'accelerator'>> {
  requireTools(guest.kind)
  const firmware = findFirmware()
  return { guest, firmware, accelerator: await findAccelerator(firmware) }
}

/** The base image, built unless it is cached, and its store; for NixOS only the store. @throws Failure */
export async function baseImage(
  say: (line: string) => void,
  guest = chooseGuest(),
): Promise<Pick<Ground, 'base' | 'store'>> {
  if (guest.kind === 'nixos') return { store: guestStore(guest) }
  const { ensureBaseImage } = await import('../image/image.ts')
  const base = await ensureBaseImage({ cache: labCache(), onProgress: say })
  return { base, store: storeOptions(base) }
}

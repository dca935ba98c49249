import { findAccelerator, type Accelerator } from './accelerator.ts'
import { findFirmware, type Firmware } from './firmware.ts'
import { chooseGuest, type Guest } from './guest.ts'
import { ensureBaseImage, storeOptions, type BaseImage } from './image.ts'
import { requireTools } from './preflight.ts'
import { labCache } from './settings.ts'

/** What every VM of the lab stands on; found once per task. */
export interface Ground {
  guest: Guest
  firmware: Firmware
  accelerator: Accelerator
  base: BaseImage
  /** nix options that name the store in which toplevels are built. */
  store: string[]
}

/** The tools, the firmware and the accelerator, each proved. @throws Failure */
export async function preflight(): Promise<Pick<Ground, 'guest' | 'firmware' | 'accelerator'>> {
  requireTools()
  const firmware = findFirmware()
  return { guest: chooseGuest(), firmware, accelerator: await findAccelerator(firmware) }
}

/** The base image, built when it is not cached, and its store. @throws Failure */
export async function baseImage(
  say: (line: string) => void,
): Promise<Pick<Ground, 'base' | 'store'>> {
  const base = await ensureBaseImage({ cache: labCache(), onProgress: say })
  return { base, store: storeOptions(base) }
}

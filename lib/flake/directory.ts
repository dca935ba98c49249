import { lstatSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { usage } from '../failure.ts'
import { labFlake } from '../settings.ts'

/**
 * The directory of a flake, absolute and without symlinks.
 * @param given as the user wrote it; LAB_FLAKE or the project without
 * @throws Failure (usage) when there is no `flake.nix` in it
 */
export function flakeDirectory(given?: string): string {
  const directory = given ?? labFlake()
  try {
    lstatSync(join(directory, 'flake.nix'))
    return realpathSync(directory)
  } catch {
    throw usage(
      `Cannot find \`${join(directory, 'flake.nix')}\``,
      'Name its directory: --flake DIR',
    )
  }
}

import { realpathSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { usage } from '../failure.ts'
import { labFlake } from '../settings.ts'
import { cannot } from '../write-file.ts'

/** A character for which nix does not take a path as that of a flake; Nix 2.8 takes no `@` and no `:` either. */
export const oddIn = (path: string): string | undefined => /[^\w/.+=,~!&'"$*;()-]/u.exec(path)?.[0]

/** The refusals that such a character leads to. */
export const isForOdd = (why: string): boolean =>
  /not a valid URL|unexpected fragment|getting status of/.test(why)

/**
 * The directory of a flake, absolute and without symlinks.
 * @param given as the user wrote it; LAB_FLAKE or the project without
 * @throws Failure (usage) when there is no `flake.nix` in it, or what is there is no file
 */
export function flakeDirectory(given?: string): string {
  const directory = given ?? labFlake()
  const file = join(directory, 'flake.nix')
  try {
    // an empty word is a variable that is not set, and no name of this directory
    if (directory !== '' && statSync(file).isFile()) return realpathSync(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') throw cannot('read', file, error)
    const by = given === undefined ? 'LAB_FLAKE=DIR' : '--flake DIR'
    throw usage(`Cannot find \`${file}\``, `Name its directory: ${by}`)
  }
  if (directory === '') throw usage('Cannot read an empty --flake', 'Name a directory: --flake DIR')
  throw usage(`Cannot read \`${file}\`: it is not a regular file`)
}

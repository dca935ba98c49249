import { realpathSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { usage } from '../failure.ts'
import { labFlake } from '../settings.ts'
import { cannot } from '../write-file.ts'

/** A character that nix does not accept in the path of a flake; Nix 2.8 accepts no `@` and no `:` either. */
export const oddIn = (path: string): string | undefined => /[^\w/.+=,~!&'"$*;()-]/u.exec(path)?.[0]

/** Whether an error of nix comes from such a character. */
export const isForOdd = (why: string): boolean =>
  /not a valid URL|unexpected fragment|getting status of/.test(why)

/**
 * The directory of a flake, absolute and without symlinks.
 * @param given as the user wrote it; default: LAB_FLAKE, or the project
 * @throws Failure (usage) when it has no `flake.nix`, or that is not a regular file
 */
export function flakeDirectory(given?: string): string {
  const directory = given ?? labFlake()
  const file = join(directory, 'flake.nix')
  try {
    // an empty argument comes from an unset variable, and does not mean the current directory
    if (directory !== '' && statSync(file).isFile()) return realpathSync(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') throw cannot('read', file, error)
    const by = given === undefined ? 'LAB_FLAKE=DIR' : '--flake DIR'
    throw usage(`Cannot find \`${file}\``, `Name its directory: ${by}`)
  }
  if (directory === '') throw usage('Cannot read an empty --flake', 'Name a directory: --flake DIR')
  throw usage(`Cannot read \`${file}\`: it is not a regular file`)
}

import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { Failure } from './failure.ts'
import { labCache, labHome } from './settings.ts'

/**
 * Makes a directory that only this user can enter, and its parents. Refuses a symlink or another
 * user's directory in its place, because keys are stored there.
 * @throws Failure
 */
export function privateDirectory(path: string): string {
  try {
    makeDirectory(dirname(path))
  } catch (error) {
    throw cannot(path, error)
  }
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw cannot(path, error)
  }
  const found = lstatSync(path)
  if (found.isSymbolicLink() || !found.isDirectory()) {
    const what = found.isSymbolicLink() ? 'a symlink' : 'not a directory'
    throw new Failure(`Cannot use \`${path}\`: it is ${what}`, {
      hint: 'Remove it, or set LAB_HOME and LAB_CACHE elsewhere',
    })
  }
  if (found.uid !== process.getuid?.()) {
    throw new Failure(`Cannot use \`${path}\`: it belongs to user ${found.uid}`, {
      hint: 'Set LAB_HOME and LAB_CACHE to directories of your own',
    })
  }
  if (found.mode & 0o077) {
    if (isOfOthers(path)) {
      throw new Failure(`Cannot use \`${path}\`: it holds files that are not the lab's`, {
        hint: 'Set LAB_HOME and LAB_CACHE to directories of their own, which no other user may enter',
      })
    }
    chmodSync(path, 0o700)
  }
  return path
}

/** Whether LAB_HOME or LAB_CACHE names a directory such as /var/cache, whose mode has to stay as it is. */
function isOfOthers(path: string): boolean {
  if (![labHome(), labCache()].includes(path)) return false
  const inside = readdirSync(path)
  return inside.length > 0 && !inside.some((name) => ours.has(name))
}
/** What the lab makes in LAB_HOME and LAB_CACHE before anything else. */
const ours = new Set([
  ...['vms', 'srv', 'runs', 'copies', 'agent-traces', 'mutants.json', 'durations.json'],
  ...['images', 'nixos', 'disko', 'mutation', 'store', 'accelerator.json'],
])

/**
 * Makes a directory and its parents if missing. Node's own `recursive` option never returns below /proc.
 * @throws the error of the first directory that cannot be made
 */
export function makeDirectory(path: string, mode = 0o777): void {
  if (existsSync(path)) return
  if (dirname(path) !== path) makeDirectory(dirname(path), mode)
  try {
    mkdirSync(path, { mode })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

/** The system's reason in an error of node:fs, such as `permission denied`. */
export const whyNot = (cause: unknown): string =>
  (cause as Error).message.split(/: |, /)[1] ?? (cause as Error).message

const cannot = (path: string, cause: unknown): Failure =>
  new Failure(`Cannot make \`${path}\`: ${whyNot(cause)}`, {
    hint: 'Set LAB_HOME and LAB_CACHE to directories that this user can make',
    cause,
  })

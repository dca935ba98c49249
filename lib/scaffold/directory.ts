import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
  type Dirent,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { Failure, usage } from '../failure.ts'

/**
 * The directory of a host, if files may be written there.
 * @throws Failure (usage) when it exists and `force` is not given, or is a symlink or a file
 */
export function hostDirectory(flake: string, name: string, force: boolean): string {
  const hosts = join(flake, 'hosts')
  const directory = join(hosts, name)
  for (const path of [hosts, directory]) {
    const stat = lstatSync(path, { throwIfNoEntry: false })
    if (stat && !stat.isDirectory()) {
      throw usage(
        `Cannot write in \`${path}\`: it is ${stat.isSymbolicLink() ? 'a symlink' : 'a file'}`,
      )
    }
  }
  if (existsSync(directory) && !force) {
    throw usage(
      `Cannot make host \`${name}\`: \`${directory}\` exists`,
      'Overwrite its two files: --force',
    )
  }
  return directory
}

/**
 * Writes files into a host's directory, all of them or none. They are written elsewhere first, so
 * that a full disk is met before anything is replaced; what else is in the directory stays.
 * @param flake where to write them first; nobody else may be writing there
 * @throws Failure
 */
export function writeHost(flake: string, directory: string, files: Record<string, string>): void {
  // what a run left that was killed
  for (const entry of readdirSync(flake)) {
    if (entry.startsWith('.scaffold-host-')) rmSync(join(flake, entry), { recursive: true })
  }
  let draft: string | undefined
  try {
    draft = mkdtempSync(join(flake, '.scaffold-host-'))
    for (const [name, text] of Object.entries(files)) writeFileSync(join(draft, name), text)
    if (existsSync(directory)) replaceAll(draft, directory, Object.keys(files))
    else {
      mkdirSync(dirname(directory), { recursive: true })
      // mkdtemp lets only its maker in
      chmodSync(draft, 0o777 & ~process.umask())
      renameSync(draft, directory)
    }
  } catch (error) {
    const why = (error as Error).message.split(/: |, /)[1]
    throw new Failure(`Cannot write \`${directory}\`: ${why}`, { cause: error })
  } finally {
    if (draft) rmSync(draft, { recursive: true, force: true })
  }
}

/** Moves files over those in a directory, and all of them back when one cannot be moved. */
function replaceAll(from: string, directory: string, names: string[]): void {
  const undo: (() => void)[] = []
  try {
    for (const name of names) {
      const [file, old] = [join(directory, name), join(from, `${name}.old`)]
      if (existsSync(file)) {
        renameSync(file, old)
        undo.push(() => renameSync(old, file))
      }
      renameSync(join(from, name), file)
      undo.push(() => rmSync(file))
    }
  } catch (error) {
    for (const back of undo.toReversed()) back()
    throw error
  }
}

/**
 * Whether any Nix file below a directory speaks of an option: a host in the plan's shape sets some that a
 * flake of another shape has never heard of. Hidden directories and symlinks are not looked into, and what
 * cannot be read says nothing.
 */
export function mentions(directory: string, option: string): boolean {
  const inside = (entry: Dirent): boolean => {
    const path = join(directory, entry.name)
    if (entry.isFile())
      return entry.name.endsWith('.nix') && readFileSync(path, 'utf8').includes(option)
    return entry.isDirectory() && !/^\.|^node_modules$/.test(entry.name) && mentions(path, option)
  }
  try {
    return readdirSync(directory, { withFileTypes: true }).some(inside)
  } catch {
    return false
  }
}

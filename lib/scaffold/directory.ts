import {
  chmodSync,
  copyFileSync,
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
import { dirname, join, relative, sep } from 'node:path'
import { usage } from '../failure.ts'
import { cannot, readRegular, requireWritable, writeFile } from '../write-file.ts'

/**
 * Looks whether a host's files may be written where the flake reads them.
 * @param files absolute paths
 * @param own where the host is: a directory, or the one file
 * @throws Failure (usage) when it exists and `force` is not given, or lies behind a symlink or a file
 */
export function requireRoom(
  flake: string,
  name: string,
  own: string,
  files: string[],
  force: boolean,
): void {
  requireWay(flake, files)
  if (force) return
  // the same host in the other form would be there twice
  const other = own.endsWith('.nix') ? own.slice(0, -4) : `${own}.nix`
  for (const path of [own, other]) {
    if (!lstatSync(path, { throwIfNoEntry: false })) continue
    throw usage(
      `Cannot make host \`${name}\`: \`${path}\` exists`,
      path === own ? `Overwrite ${files.length > 1 ? 'its two files' : 'it'}: --force` : undefined,
    )
  }
}

/**
 * Looks whether files can be written below a flake.
 * @param files absolute paths
 * @throws Failure (usage) when one lies behind a symlink or a file, or is neither there as a file nor absent
 */
export function requireWay(flake: string, files: string[]): void {
  for (const file of files) {
    const steps = relative(flake, file).split(sep)
    for (const [index] of steps.entries()) {
      const path = join(flake, ...steps.slice(0, index + 1))
      const stat = lstatSync(path, { throwIfNoEntry: false })
      const right = path === file ? stat?.isFile() : stat?.isDirectory()
      if (!stat || right) continue
      const what = stat.isSymbolicLink()
        ? 'a symlink'
        : stat.isDirectory()
          ? 'a directory'
          : 'a file'
      throw usage(`Cannot write in \`${path}\`: it is ${what}`)
    }
  }
}

/** Writes a host that is one file, over one that is there. @throws Failure */
export function writeHostFile(path: string, text: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true })
  } catch (error) {
    throw cannot('write', path, error)
  }
  const over = lstatSync(path, { throwIfNoEntry: false }) ? readRegular(path) : undefined
  if (over) requireWritable(over)
  writeFile(path, text, { over })
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
    throw cannot('write', directory, error)
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
      // not moved: whoever is killed in between would leave none
      if (existsSync(file)) {
        copyFileSync(file, old)
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

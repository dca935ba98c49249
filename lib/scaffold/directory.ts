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
 * Checks that a host's files may be written where the flake reads them.
 * @param files absolute paths
 * @param own the host's directory, or its only file
 * @throws Failure (usage) when `own` exists and `force` is not given, or when a path leads through a symlink or a file
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
  // a host that exists in the other form (file or directory) would be there twice
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
 * Checks that files can be written below a flake.
 * @param files absolute paths
 * @throws Failure (usage) when a path leads through a symlink or a file, or exists and is not a regular file
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

/** Writes a host that is one file, and overwrites an existing one. @throws Failure */
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
 * that a full disk shows before anything is replaced; other files in the directory are kept.
 * @param flake where to write them first; no other process may write there meanwhile
 * @throws Failure
 */
export function writeHost(flake: string, directory: string, files: Record<string, string>): void {
  // left by a run that was killed
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
      // mkdtemp makes a directory for its owner only
      chmodSync(draft, 0o777 & ~process.umask())
      renameSync(draft, directory)
    }
  } catch (error) {
    throw cannot('write', directory, error)
  } finally {
    if (draft) rmSync(draft, { recursive: true, force: true })
  }
}

/** Moves files into a directory over existing ones, and restores all of them if one cannot be moved. */
function replaceAll(from: string, directory: string, names: string[]): void {
  const undo: (() => void)[] = []
  try {
    for (const name of names) {
      const [file, old] = [join(directory, name), join(from, `${name}.old`)]
      // copied, not moved: if killed in between, there would be no file
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
 * Whether any Nix file below a directory mentions an option: a host in the plan's shape sets options that other
 * flakes may not have. Hidden directories and symlinks are skipped; what cannot be read counts as no mention.
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

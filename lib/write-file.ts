import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Failure, usage } from './failure.ts'
import { flock } from './lock.ts'
import { pasted } from './quote.ts'

/** A file as it was read, for a later write to compare with. */
export interface FileSeen {
  path: string
  bytes: Buffer
  mode: number
  uid: number
  gid: number
}

/**
 * Reads a regular file.
 * @throws Failure (usage) for a symlink, which a rename would replace by a file, and for anything
 * else that is not a regular file
 */
export function readRegular(path: string): FileSeen {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (!stat) throw usage(`Cannot read \`${path}\`: it does not exist`)
  if (stat.isSymbolicLink()) {
    throw usage(
      `Cannot edit \`${path}\`: it is a symlink`,
      'Name the directory that the file is really in',
    )
  }
  if (!stat.isFile()) throw usage(`Cannot read \`${path}\`: it is not a regular file`)
  const fd = open(path, constants.O_RDONLY | constants.O_NOFOLLOW, 'read')
  try {
    const { mode, uid, gid } = fstatSync(fd)
    return { path, bytes: readFileSync(fd), mode: mode & 0o7777, uid, gid }
  } finally {
    closeSync(fd)
  }
}

/**
 * Checks a file's own permissions: a rename needs only those of the directory, and would replace a read-only file.
 * @throws Failure for a file that nobody may write (usage), or that this user may not write
 */
export function requireWritable({ path, mode }: FileSeen): void {
  if ((mode & 0o222) === 0)
    throw usage(`Cannot edit \`${path}\`: it is read-only`, pasted('chmod', 'u+w', path))
  try {
    accessSync(path, constants.W_OK)
  } catch (error) {
    throw cannot('edit', path, error)
  }
}

export interface WriteOptions {
  /** Permission bits; default those of the replaced file, else 0644. */
  mode?: number
  /** The file as it was read, or `any` for the lab's own files; if unset, the path must not exist. */
  over?: FileSeen | 'any'
}

/**
 * Writes a file whole or not at all: writes a new file beside it, then renames that. Keeps the mode
 * and owner of a replaced file.
 * @throws Failure if the file changed since it was read, or exists although it was not read
 */
export function writeFile(
  path: string,
  content: string | Buffer,
  options: WriteOptions = {},
): void {
  const over = options.over === 'any' ? undefined : options.over
  removeDrafts(path)
  const draft = draftOf(path, process.pid)
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL
  const fd = open(draft, flags, 'write', 0o600, path)
  try {
    try {
      writeFileSync(fd, content)
      if (over && (over.uid !== process.getuid?.() || over.gid !== process.getgid?.()))
        own(fd, over)
      fchmodSync(fd, options.mode ?? over?.mode ?? 0o644)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    const exists = lstatSync(path, { throwIfNoEntry: false }) !== undefined
    if (options.over !== 'any' && (over ? !unchanged(over) : exists)) {
      throw new Failure(
        `Cannot write \`${path}\`: ${over ? 'it changed meanwhile' : 'it exists'}`,
        {
          hint: over && 'Nothing was written; run the command again',
        },
      )
    }
    renameSync(draft, path)
  } catch (error) {
    rmSync(draft, { force: true })
    throw error instanceof Failure ? error : cannot('write', path, error)
  }
}

const draftOf = (path: string, pid: number): string =>
  join(dirname(path), `.${basename(path)}.${pid}.new`)

/** Removes the drafts that killed writers left: those whose process has ended. */
function removeDrafts(path: string): void {
  if (!existsSync(dirname(path))) return
  for (const entry of readdirSync(dirname(path))) {
    const pid = Number(/\.(\d+)\.new$/.exec(entry)?.[1])
    const draft = draftOf(path, pid)
    // this process has no draft open, so one with its pid was left by an earlier process
    const over = pid === process.pid || !existsSync(`/proc/${pid}`)
    if (basename(draft) === entry && over) rmSync(draft, { force: true })
  }
}

/** Whether the file is still a regular file with the bytes that were read. */
function unchanged({ path, bytes }: FileSeen): boolean {
  const now = lstatSync(path, { throwIfNoEntry: false })
  return now?.isFile() === true && now.size === bytes.length && readFileSync(path).equals(bytes)
}

/** Root gives the file back to the user who owned it; another user cannot and need not, so EPERM is ignored. */
function own(fd: number, { uid, gid }: FileSeen): void {
  try {
    fchownSync(fd, uid, gid)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error
  }
}

/** @param named the path that a failure names, if that is another one */
function open(path: string, flags: number, verb: string, mode?: number, named = path): number {
  try {
    return openSync(path, flags, mode)
  } catch (error) {
    throw cannot(verb, named, error)
  }
}

/** The failure for an error of node:fs; if permission is denied, its hint names the owner. */
export function cannot(verb: string, path: string, cause: unknown): Failure {
  const { code, message } = cause as NodeJS.ErrnoException
  const [first, why] = message.split(/: |, /)
  const hint = code === 'EACCES' || code === 'EPERM' ? whose(path) : undefined
  return new Failure(`Cannot ${verb} \`${path}\`: ${why ?? first}`, { hint, cause })
}

/** Names the owner of a path that this user may not use, or of the directory that it is in or would be in. */
function whose(path: string): string | undefined {
  let at = path
  while (!existsSync(at) || (isMine(at) && !statSync(at).isDirectory())) at = dirname(at)
  if (isMine(at)) return undefined
  return `\`${at}\` belongs to user ${statSync(at).uid}: run this as that user, or in a clone of your own`
}

const isMine = (path: string): boolean => statSync(path).uid === process.getuid?.()

/**
 * Runs `work` while no other task writes in the directory. The kernel holds the lock (flock(2) on
 * the directory itself), so nothing is left behind, not even by a crash.
 * @param seconds to wait for another task
 * @throws Failure if the lock is not free in time
 */
export async function withDirectory<T>(
  directory: string,
  seconds: number,
  work: () => Promise<T>,
): Promise<T> {
  const fd = open(directory, constants.O_RDONLY | constants.O_DIRECTORY, 'open')
  try {
    if (!(await flock(fd, ['--timeout', String(seconds)]))) {
      throw new Failure(
        `Cannot write in \`${directory}\`: another task has been writing there for ${seconds} s`,
      )
    }
    return await work()
  } finally {
    closeSync(fd)
  }
}

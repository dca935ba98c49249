import { chmodSync, mkdirSync, readlinkSync, realpathSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { run } from '../run.ts'

/** A built system that becomes generation 1 of a disk. */
export interface Generation {
  toplevel: string
  /** All store paths of its closure. */
  closure: string[]
  /** Logical paths of files in the closure. */
  kernel: string
  initrd: string
  /** Options that name its store. */
  store: string[]
  /** The path on this machine for a logical path. */
  physical: (logical: string) => string
}

/** Writes into a file system that is not mounted. All files belong to root and have the times of a store. */
export interface Writer {
  directory: (path: string, mode?: number) => void
  symlink: (target: string, path: string) => void
  /** Copies a file of this machine, with its mode. */
  file: (source: string, path: string) => void
  /** Copies a store path and everything below it. */
  tree: (source: string, path: string) => void
}

/** Looks up the closure, kernel and initrd of a built toplevel. @throws Failure when it is not in the store */
export async function readGeneration(toplevel: string, store: string[]): Promise<Generation> {
  const root = storeRoot(store)
  const physical = (logical: string): string => join(root, logical)
  const query = ['--query', '--requisites', toplevel]
  const { stdout } = await run('nix-store', [...store, ...query])
  // a chain of symlinks may lead out of the toplevel, and its targets are logical paths
  const file = (name: string): string => {
    const path = resolve(toplevel, readlinkSync(physical(join(toplevel, name))))
    return realpathSync(physical(path)).slice(root.length)
  }
  return {
    toplevel,
    closure: stdout.trim().split('\n'),
    kernel: file('kernel'),
    initrd: file('initrd'),
    store,
    physical,
  }
}

/** The directory above /nix/store of a store elsewhere; empty for the machine's own. */
function storeRoot(store: string[]): string {
  const at = store.indexOf('--store')
  const url = at === -1 ? (process.env['NIX_REMOTE'] ?? '') : store[at + 1]!
  const root = /^(?:local\?root=)?(\/.*)$/.exec(url)?.[1]
  return root === undefined ? '' : realpathSync(root)
}

/** Writes Nix's state outside the store: the database of the closure, and the system profile. */
export async function writeState(
  files: Writer,
  { toplevel, closure, store }: Generation,
  work: string,
): Promise<void> {
  const dump = await run('nix-store', [...store, '--dump-db', ...closure], { timeout: 600 })
  const scratch = join(work, 'db')
  mkdirSync(scratch)
  const own = ['--store', scratch, '--option', 'build-users-group', '']
  await run('nix-store', [...own, '--load-db'], { input: dump.stdout, timeout: 600 })
  for (const path of nixDirectories) files.directory(path)
  for (const name of ['db.sqlite', 'schema']) {
    const file = join(scratch, 'nix/var/nix/db', name)
    chmodSync(file, 0o644)
    files.file(file, `/nix/var/nix/db/${name}`)
  }
  files.symlink('/nix/var/nix/profiles', '/nix/var/nix/gcroots/profiles')
  files.symlink('/run/current-system', '/nix/var/nix/gcroots/current-system')
  files.symlink('/run/booted-system', '/nix/var/nix/gcroots/booted-system')
  files.symlink(toplevel, '/nix/var/nix/profiles/system-1-link')
  files.symlink('system-1-link', '/nix/var/nix/profiles/system')
}

const nixDirectories = [
  '/nix/var',
  '/nix/var/log',
  '/nix/var/log/nix',
  '/nix/var/log/nix/drvs',
  '/nix/var/nix',
  '/nix/var/nix/db',
  '/nix/var/nix/gcroots',
  '/nix/var/nix/gcroots/auto',
  '/nix/var/nix/gcroots/per-user',
  '/nix/var/nix/profiles',
  '/nix/var/nix/profiles/per-user',
  '/nix/var/nix/temproots',
  '/nix/var/nix/userpool',
  '/nix/var/nix/daemon-socket',
]

/**
 * Writes what the root of a NixOS has before its first boot, besides its store: mount points, and the file
 * by which NixOS tools recognise it.
 */
export function writeSkeleton(files: Writer, work: string): void {
  for (const name of ['boot', 'dev', 'etc', 'home', 'proc', 'run', 'sys', 'var']) {
    files.directory(`/${name}`)
  }
  files.directory('/root', 0o700)
  files.directory('/tmp', 0o1777)
  const empty = join(work, 'empty')
  writeFileSync(empty, '', { mode: 0o644 })
  files.file(empty, '/etc/NIXOS')
  files.directory('/nix')
  files.directory('/nix/store')
}

import { chmodSync, mkdirSync, readlinkSync, realpathSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { run } from '../run.ts'

/** A built system, as a disk has it for its generation 1. */
export interface Generation {
  toplevel: string
  /** Every store path of it. */
  closure: string[]
  /** Files of the closure, by their logical paths. */
  kernel: string
  initrd: string
  /** Options that name its store. */
  store: string[]
  /** Where this machine has what lies at a logical path. */
  physical: (logical: string) => string
}

/** What writes into a file system that is not mounted: owners are root's, times those of a store. */
export interface Writer {
  directory: (path: string, mode?: number) => void
  symlink: (target: string, path: string) => void
  /** The file that this machine has at `source`, with its mode. */
  file: (source: string, path: string) => void
  /** A store path with all below it. */
  tree: (source: string, path: string) => void
}

/** Looks up what belongs to a built toplevel. @throws Failure when it is not in the store */
export async function readGeneration(toplevel: string, store: string[]): Promise<Generation> {
  const root = storeRoot(store)
  const physical = (logical: string): string => join(root, logical)
  const query = ['--query', '--requisites', toplevel]
  const { stdout } = await run('nix-store', [...store, ...query])
  // a chain of links may leave the toplevel, and is of logical paths
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

/** The directory before /nix/store of a store that lies elsewhere; nothing for the machine's own. */
function storeRoot(store: string[]): string {
  const at = store.indexOf('--store')
  const url = at === -1 ? (process.env['NIX_REMOTE'] ?? '') : store[at + 1]!
  const root = /^(?:local\?root=)?(\/.*)$/.exec(url)?.[1]
  return root === undefined ? '' : realpathSync(root)
}

/** Writes what Nix keeps beside the store: the database of the closure, and the system profile. */
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
 * What the root of NixOS has before its first boot, besides its store: places to mount on, and the file
 * by which its own tools know it.
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

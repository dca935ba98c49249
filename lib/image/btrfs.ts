import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { writeSkeleton, writeState, type Generation, type Writer } from './generation.ts'
import { findCommand } from '../find-command.ts'
import { quote } from '../quote.ts'
import { run } from '../run.ts'

/**
 * Makes a btrfs with subvolumes that holds generation 1 of a host. `mkfs.btrfs` makes it from a directory
 * with a copy of the closure, and takes over the owners of the files.
 * @param path of the image, of `size` bytes
 * @param subvolumes by mount point
 * @param args more for mkfs.btrfs, such as a label
 * @throws Failure when no mkfs.btrfs here can make subvolumes from directories
 */
export async function makeBtrfs(
  path: string,
  size: number,
  generation: Generation,
  subvolumes: Record<string, string>,
  args: string[],
  work: string,
): Promise<void> {
  const mkfs = await findMkfs(generation)
  const tree = join(work, 'tree')
  const files = new Copies((logical) => join(tree, within(subvolumes, logical)))
  const named = Object.values(subvolumes).filter((name) => name !== '')
  for (const name of named) files.parents(join(tree, name))
  writeSkeleton(files, work)
  for (const store of generation.closure) files.tree(generation.physical(store), store)
  await writeState(files, generation, work)
  // every mount point must exist
  for (const mountPoint of Object.keys(subvolumes)) {
    if (mountPoint !== '/') files.parents(join(tree, within(subvolumes, mountPoint, true)))
  }
  await run('truncate', ['--size', String(size), path])
  const flags = named.flatMap((name) => ['--subvol', name])
  files.command(mkfs, '--quiet', ...args, '--rootdir', tree, ...flags, path)
  files.command('chmod', '-R', 'u+w', tree)
  files.command('rm', '-rf', tree)
  await files.run(join(work, 'commands'))
}

/** The place of a path in the file system: in the subvolume with the nearest mount point above it. */
function within(subvolumes: Record<string, string>, path: string, above = false): string {
  const [mountPoint, name] = Object.entries(subvolumes)
    .filter(([each]) => each === '/' || (path === each && !above) || path.startsWith(`${each}/`))
    .toSorted(([a], [b]) => b.length - a.length)[0]!
  return join(name, path.slice(mountPoint === '/' ? 0 : mountPoint.length))
}

/** This machine's mkfs.btrfs if it knows `--subvol`, else the one in the host's closure. */
async function findMkfs({ toplevel, physical }: Generation): Promise<string> {
  const own = join(toplevel, 'sw/bin/mkfs.btrfs')
  const found = [
    findCommand('mkfs.btrfs'),
    physical(own) === own && existsSync(own) ? own : undefined,
  ]
  for (const path of found) {
    if (!path) continue
    const { stdout, stderr } = await run(path, ['--help'], { allow: [1, 126, 127] })
    if (`${stdout}${stderr}`.includes('--subvol')) return path
  }
  throw new Failure('Cannot make the root of this host: no mkfs.btrfs here knows `--subvol`', {
    hint: 'Install btrfs-progs 6.12 or newer, or use --disko, which makes the disk in a separate VM',
  })
}

/**
 * A shell script that copies into a directory. It runs as root of a user namespace, in which root owns
 * this user's files.
 */
class Copies implements Writer {
  private readonly lines = ['set -eu']
  private readonly at: (path: string) => string

  constructor(at: (path: string) => string) {
    this.at = at
  }

  command(...words: string[]): void {
    this.lines.push(words.map(quote).join(' '))
  }

  parents(path: string): void {
    this.command('mkdir', '-p', path)
  }

  directory(path: string, mode = 0o755): void {
    this.parents(this.at(path))
    this.command('chmod', mode.toString(8), this.at(path))
  }

  symlink(target: string, path: string): void {
    this.command('ln', '-s', target, this.at(path))
  }

  file(source: string, path: string): void {
    this.command('cp', source, this.at(path))
  }

  tree(source: string, path: string): void {
    this.command('cp', '-dR', '--preserve=mode,timestamps', '--reflink=auto', source, this.at(path))
  }

  async run(script: string): Promise<void> {
    writeFileSync(script, `umask 022\n${this.lines.join('\n')}\n`)
    const asRoot = process.getuid?.() === 0 ? [] : ['unshare', '--user', '--map-root-user']
    const [command, ...args] = [...asRoot, 'sh', script]
    await run(command!, args, { timeout: 3600 })
  }
}

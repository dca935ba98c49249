/** Helpers that read a disk without mounting it. */
import { chmodSync, mkdirSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { run } from '../lib/run.ts'

/** Asks debugfs. @param root a file; add `?offset=<bytes>` if the file system does not start at its beginning */
export const debugfs =
  (root: string) =>
  async (command: string): Promise<string> =>
    (await run('debugfs', ['-R', command, root])).stdout

/** Expects the Nix store on an ext4 to be valid by its own database, and to hold one closure and nothing else. */
export async function expectStore(root: string, toplevel: string, dir: string): Promise<void> {
  const ask = debugfs(root)
  mkdirSync(join(dir, 'nix/var/nix/db'), { recursive: true })
  await ask(`rdump /nix/store ${dir}/nix`)
  for (const name of ['db.sqlite', 'schema']) {
    await ask(`dump /nix/var/nix/db/${name} ${dir}/nix/var/nix/db/${name}`)
    chmodSync(join(dir, 'nix/var/nix/db', name), 0o644)
  }
  const args = ['--store', dir, '--option', 'build-users-group', '']
  await run('nix-store', [...args, '--verify', '--check-contents'])
  const closure = await run('nix-store', [...args, '--query', '--requisites', toplevel])
  const paths = readdirSync(join(dir, 'nix/store')).filter((name) => name !== '.links')
  expect(closure.stdout.trim().split('\n').length).toBe(paths.length)
  await run('chmod', ['-R', 'u+w', dir])
}

/** Copies the ESP, the first partition, from a raw disk and checks its file system. */
export async function espOf(disk: string, path: string, mib: number): Promise<string> {
  const place = ['bs=1M', 'skip=1', `count=${mib}`, 'conv=sparse']
  await run('dd', [`if=${disk}`, `of=${path}`, ...place])
  await run('fsck.vfat', ['-n', path])
  return path
}

/** Text of a file on an ESP. */
export const onEsp = async (esp: string, path: string): Promise<string> =>
  (await run('mcopy', ['-i', esp, `::/${path}`, '-'])).stdout

/** Partitions of a raw disk, as sfdisk sees them. */
export async function partitionsOf(
  disk: string,
): Promise<{ start: number; size: number; name: string; uuid: string }[]> {
  await run('sfdisk', ['--verify', disk])
  const { stdout } = await run('sfdisk', ['--json', disk])
  return (JSON.parse(stdout) as { partitiontable: { partitions: never[] } }).partitiontable
    .partitions
}

/** What blkid finds at an offset in a file. */
export async function blkid(disk: string, start: number): Promise<Record<string, string>> {
  const args = ['--probe', '--offset', String(start), '--output', 'export', disk]
  const { stdout } = await run('blkid', args)
  return Object.fromEntries(
    stdout
      .trim()
      .split('\n')
      .map((line) => line.split('=')),
  )
}

export const sameFile = (a: string, b: string): boolean => readFileSync(a).equals(readFileSync(b))

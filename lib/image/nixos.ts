import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { fingerprint, finishBase, type Base } from './base.ts'
import { makeBtrfs } from './btrfs.ts'
import { cached } from './cache.ts'
import { Debugfs } from './debugfs.ts'
import { makeEsp, installGeneration } from './esp.ts'
import { privateDirectory } from '../directory.ts'
import { Failure } from '../failure.ts'
import { readGeneration, writeSkeleton, type Generation } from './generation.ts'
import { ensureHostLayer, type LayerOptions } from './layer.ts'
import { closure, type PathInfo } from '../nix/nix.ts'
import { mib, putInto, writeTable, type NamedPartition } from './partitions.ts'
import { checkDisk } from './qcow2.ts'
import { counting } from '../retry.ts'
import { run } from '../run.ts'
import { labCache } from '../settings.ts'
import { requireSpace } from '../vm/preflight.ts'

/** The disk that a NixOS host's configuration mounts; `nix/lab/disk.nix` reads it from there. */
export interface DiskLayout {
  esp: NamedDevice
  root: NamedDevice & {
    fsType: 'ext4' | 'btrfs'
    /** btrfs subvolumes by mount point; an empty name is the whole file system. */
    subvolumes: Record<string, string>
  }
  swap: NamedDevice[]
  /** systemd-boot from the host's own systemd. */
  loader: string
}

/** A file system or its partition, as /dev/disk/by-<by>/<name> names it. */
export interface NamedDevice {
  by: 'partlabel' | 'partuuid' | 'label' | 'uuid'
  name: string
}

export type NixosDisk = Required<LayerOptions> & { layout: DiskLayout }

/**
 * The disk of a NixOS host as its configuration mounts it, made like the embedded guest's: without root,
 * mount or VM, and cached. On ext4, systems of one layout share a base that holds the closure of the first
 * of them, and each takes only the space of what differs. A btrfs is made whole for each system.
 * @returns path of a qcow2 image
 * @throws Failure
 */
export async function ensureNixosDisk(
  wanted: NixosDisk,
  say: (line: string) => void,
): Promise<string> {
  const images = join(privateDirectory(labCache()), 'nixos')
  if (wanted.layout.root.fsType === 'ext4') {
    return ensureHostLayer(await ensureBase(images, wanted, say), wanted)
  }
  const key = hash([wanted.toplevel, wanted.size, wanted.layout])
  const path = join(images, `${key}.qcow2`)
  return await cached({
    ...once(images, key, wanted, say),
    find: () => (existsSync(path) ? path : undefined),
    make: async (work) => {
      await counted(wanted, say, () => makeWhole(wanted, work, path))
      return path
    },
  })
}

/** Seconds that making a disk may take. */
const limit = 3600

const once = (dir: string, key: string, { host }: NixosDisk, say: (line: string) => void) => ({
  ...{ dir, key, wait: limit, say },
  what: `make the disk of \`${host}\``,
})

const counted = (
  { host }: NixosDisk,
  say: (line: string) => void,
  make: () => Promise<void>,
): Promise<void> => counting(`make the disk of ${host}`, limit, say, make)

/** The path of `LAB_NIXOS_IMAGE`, an image that was made elsewhere. @throws Failure when it cannot be used */
export async function givenImage(): Promise<string | undefined> {
  const given = process.env['LAB_NIXOS_IMAGE']
  if (!given) return undefined
  const path = resolve(given)
  if (!existsSync(path)) {
    throw new Failure(`Cannot find the image \`${path}\``, { hint: 'LAB_NIXOS_IMAGE names it' })
  }
  await checkDisk(path)
  return path
}

/** The base of this layout that holds the largest part of a closure, at least three quarters; else a new one. */
async function ensureBase(
  images: string,
  wanted: NixosDisk,
  say: (line: string) => void,
): Promise<Base> {
  const paths = await closure(wanted.toplevel, wanted.store)
  const layout = hash(wanted.layout)
  const find = (): Base | undefined =>
    readdirSync(images)
      .filter((name) => name.startsWith(`${layout}-`))
      .map((name) => readBase(join(images, name), wanted.layout))
      .filter((base) => base !== undefined)
      .map((base) => ({ base, lacks: size(paths.filter(({ path }) => !base.holds.has(path))) }))
      .filter(({ lacks }) => lacks <= size(paths) / 4)
      .toSorted((a, b) => a.lacks - b.lacks)[0]?.base
  const base = await cached({
    ...once(images, layout, wanted, say),
    find,
    make: async (work) => {
      // a new name each time: a damaged base of the same closure must stay, as a disk may depend on it
      const dir = join(images, `${layout}-${hash([wanted.toplevel, Date.now()])}`)
      requireSpace(images, size(paths) * 1.5, `make the disk of \`${wanted.host}\``)
      await counted(wanted, say, () => makeBase(wanted, work))
      renameSync(work, dir)
      return readBase(dir, wanted.layout)!
    },
  })
  // keeps other tasks from deleting this base while a layer on it is made
  const now = new Date()
  utimesSync(base.dir, now, now)
  return base
}

const size = (paths: PathInfo[]): number => paths.reduce((sum, { narSize }) => sum + narSize, 0)

/** Reads a base; undefined when it is damaged or incomplete. */
function readBase(dir: string, layout: DiskLayout): Base | undefined {
  const raw = join(dir, 'base.raw')
  try {
    const read = readFileSync(join(dir, 'manifest.json'), 'utf8')
    const manifest = JSON.parse(read) as {
      closure: string[]
      size: number
      rootSize: number
      fingerprint: string
    }
    if (statSync(raw).size !== manifest.size || fingerprint(raw) !== manifest.fingerprint) {
      return undefined
    }
    const partitions = partitionsOf(layout, manifest.rootSize)
    return {
      ...{ dir, raw, partitions },
      ...{ esp: partitions[0]!, root: partitions.at(-1)! },
      ...{ kernel: join(dir, 'kernel'), initrd: join(dir, 'initrd') },
      holds: new Set(manifest.closure),
    }
  } catch {
    return undefined
  }
}

/** Makes a disk with an ext4 that holds a closure, but no generation. */
async function makeBase({ toplevel, store, layout }: NixosDisk, work: string): Promise<void> {
  const generation = await readGeneration(toplevel, store)
  const files = new Debugfs()
  writeSkeleton(files, work)
  for (const path of generation.closure) files.tree(generation.physical(path), path)
  // mke2fs makes one inode for each 16 KiB
  const { bytes, inodes } = files.taken
  const least = Math.max(bytes * 1.1, inodes * 1.1 * 16384) + 512 * mib
  const rootSize = Math.ceil(least / mib) * mib
  const partitions = partitionsOf(layout, rootSize)
  const { start } = partitions.at(-1)!
  const raw = join(work, 'base.raw')
  await run('truncate', ['--size', String(start + rootSize + mib), raw])
  await run('mke2fs', [
    ...['-q', '-t', 'ext4', '-m', '0', ...identity(layout.root, { label: '-L', uuid: '-U' })],
    ...['-E', `offset=${start},lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0`],
    ...[raw, `${rootSize / 1024}k`],
  ])
  await files.run(`${raw}?offset=${start}`, join(work, 'commands'))
  const boot = bootFiles(generation, layout)
  await finishBase(work, raw, partitions, boot, espArgs(layout))
  await putSwap(raw, layout, partitions, work)
  copyFileSync(boot.kernel, join(work, 'kernel'))
  copyFileSync(boot.initrd, join(work, 'initrd'))
  for (const name of ['commands', 'empty']) rmSync(join(work, name))
  const manifest = {
    closure: generation.closure,
    size: statSync(raw).size,
    rootSize,
    fingerprint: fingerprint(raw),
  }
  writeFileSync(join(work, 'manifest.json'), `${JSON.stringify(manifest)}\n`)
}

/** Makes a disk with a btrfs root that holds a host's generation 1. */
async function makeWhole(wanted: NixosDisk, work: string, path: string): Promise<void> {
  const { layout, toplevel, store, size: bytes, host } = wanted
  const generation = await readGeneration(toplevel, store)
  const partitions = partitionsOf(layout, 0)
  const { start } = partitions.at(-1)!
  const rootSize = bytes - mib - start
  const last = { ...partitions.at(-1)!, size: rootSize }
  const all = [...partitions.slice(0, -1), last]
  const within = (name: string): string => join(work, name)
  const total = size(await closure(toplevel, store))
  // room for a copy of the closure, the file system, and the image
  requireSpace(work, total * 3.5, `make the disk of \`${host}\``)
  if (rootSize < total * 1.2 + 512 * mib) {
    const least = Math.ceil((start + total * 1.2) / mib + 513)
    throw new Failure(`Cannot make a disk of ${Math.floor(bytes / mib)} MiB`, {
      hint: `The least that works is ${least} MiB`,
    })
  }
  const args = identity(layout.root, { label: '--label', uuid: '--uuid' })
  await makeBtrfs(within('root.img'), rootSize, generation, layout.root.subvolumes, args, work)
  const boot = bootFiles(generation, layout)
  await makeEsp(within('esp.img'), all[0]!.size, boot, espArgs(layout))
  await installGeneration(within('esp.img'), generation, boot)
  const disk = within('disk.raw')
  await run('truncate', ['--size', String(bytes), disk])
  await putSwap(disk, layout, all, work)
  await writeTable(disk, all)
  const made = within('disk.qcow2')
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', disk, made])
  await putInto(made, all[0]!, within('esp.img'), 'qcow2')
  await putInto(made, last, within('root.img'), 'qcow2')
  renameSync(made, path)
}

/** An ESP of 1 GiB, like in disko's example, a swap of 2 GiB for each device, and the root. */
function partitionsOf({ esp, swap, root }: DiskLayout, rootSize: number): NamedPartition[] {
  let start = mib
  const next = (
    device: NamedDevice,
    type: NamedPartition['type'],
    bytes: number,
    plain: string,
  ): NamedPartition => {
    const { by, name } = device
    const partition = { start, size: bytes, type, name: by === 'partlabel' ? name : plain }
    start += bytes
    return by === 'partuuid' ? { ...partition, uuid: name } : partition
  }
  return [
    next(esp, 'uefi', 1024 * mib, 'ESP'),
    ...swap.map((device) => next(device, 'swap', 2048 * mib, 'swap')),
    next(root, 'linux', rootSize, 'nixos'),
  ]
}

/** Arguments of a mkfs that set the label or UUID of a file system, if it is mounted by one. */
function identity({ by, name }: NamedDevice, flags: Record<'label' | 'uuid', string>): string[] {
  return by === 'label' || by === 'uuid' ? [flags[by], name] : []
}

const espArgs = ({ esp }: DiskLayout): string[] =>
  identity(esp.by === 'uuid' ? { ...esp, name: esp.name.replace('-', '') } : esp, {
    label: '-n',
    uuid: '-i',
  })

async function putSwap(
  disk: string,
  { swap }: DiskLayout,
  partitions: NamedPartition[],
  work: string,
): Promise<void> {
  for (const [at, device] of swap.entries()) {
    const partition = partitions[at + 1]!
    const image = join(work, 'swap.img')
    await run('truncate', ['--size', String(partition.size), image])
    await run('mkswap', [...identity(device, { label: '-L', uuid: '-U' }), image])
    await putInto(disk, partition, image)
    rmSync(image)
  }
}

const bootFiles = (
  { kernel, initrd, physical }: Generation,
  { loader }: DiskLayout,
): { loader: string; kernel: string; initrd: string } => ({
  loader: physical(loader),
  kernel: physical(kernel),
  initrd: physical(initrd),
})

const hash = (of: unknown): string =>
  createHash('sha256')
    .update(`1 ${JSON.stringify(of)}`)
    .digest('hex')
    .slice(0, 16)

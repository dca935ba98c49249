import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { makeEsp, type EspFiles } from './esp.ts'
import { mib, putInto, writeTable, type NamedPartition, type Partition } from './partitions.ts'
import { run } from '../run.ts'
import { project } from '../settings.ts'

/** What is fixed when an image is built, and what was found in the mirror then. */
export interface Manifest {
  suite: string
  mirror: string
  /** Versions by Debian package. */
  packages: Record<string, string>
  /** Stages of the build in order; `mb` is what lay in the building directory after it. */
  stages: { name: string; seconds: number; mb: number }[]
  /** Size of base.raw in bytes, as `ls` shows it and as it takes up on the disk. */
  size: number
  allocated: number
  /** See `fingerprint`. */
  fingerprint: string
}

/** What layers are made over, with `esp.img` and `root.meta` in its directory (see `finishBase`). */
export interface Base {
  /** Never changes: another build gets another directory, as overlays stand on this one. */
  dir: string
  raw: string
  /** First the ESP; the root is the last one, which a layer makes as large as its disk. */
  partitions: NamedPartition[]
  esp: Partition
  root: Partition
  /** What its ESP holds, as files of this machine. */
  kernel: string
  initrd: string
  /** Store paths that its root holds. */
  holds: ReadonlySet<string>
  /** Where its root has kernel and first stage besides, for a second name of them. */
  bootFiles?: string
}

/** The embedded guest's. */
export interface BaseImage extends Base {
  manifest: Manifest
}

export interface ImageOptions {
  /** Default `labCache()`. */
  cache?: string
  /** Default `LAB_DEBIAN_MIRROR`, else the mirror that apt is set up with. */
  mirror?: string
  /** Default `LAB_DEBIAN_SUITE`, else forky. */
  suite?: string
  /** Builds anew, with the versions that the mirror has now, even if there is an image. */
  fresh?: boolean
  onProgress?: (line: string) => void
  signal?: AbortSignal
}

/** The files that a base image is made by. */
export const recipe = join(project, 'nix/lab/image')
const esp: NamedPartition = { start: mib, size: 264 * mib, type: 'uefi', name: 'ESP' }
const root: NamedPartition = { start: 265 * mib, size: 1536 * mib, type: 'linux', name: 'nixos' }
/** How the embedded guest's disk is laid out. */
export const layout = { esp, root, partitions: [esp, root] }

/** The Debian suite that an image is made of. */
export const suiteOf = (options: ImageOptions): string =>
  options.suite ?? (process.env['LAB_DEBIAN_SUITE'] || 'forky')

/**
 * The hash of all that goes into a base image and is known beforehand: the recipe's files and the
 * suite. Versions of packages move with the mirror and are written into the manifest instead;
 * `fresh` takes new ones.
 */
export function imageKey(options: ImageOptions = {}): string {
  const hash = createHash('sha256').update(`2 ${suiteOf(options)}`)
  for (const file of readdirSync(recipe, { recursive: true, withFileTypes: true }).toSorted(
    byPath,
  )) {
    if (file.isFile())
      hash.update(`\0${file.name}\0`).update(readFileSync(join(file.parentPath, file.name)))
  }
  return hash.digest('hex').slice(0, 16)
}
const byPath = (a: { parentPath: string; name: string }, b: typeof a): number =>
  join(a.parentPath, a.name) < join(b.parentPath, b.name) ? -1 : 1

/** The image in a directory, or what is wrong with it. */
export function readImage(dir: string): BaseImage | string {
  const raw = join(dir, 'base.raw')
  let manifest: Manifest
  try {
    manifest = JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8')) as Manifest
    const { size } = statSync(raw)
    if (size !== manifest.size) return `it is cut short (${size} of ${manifest.size} bytes)`
    if (fingerprint(raw) !== manifest.fingerprint) return 'it is not what was built'
    for (const file of ['root.meta', 'esp.img', 'boot/kernel', 'boot/initrd', 'bin/busybox']) {
      if (!existsSync(join(dir, file))) return `\`${file}\` is missing`
    }
  } catch (error) {
    return `it cannot be read (${(error as Error).message.split('\n')[0]})`
  }
  return {
    dir,
    raw,
    ...layout,
    kernel: join(dir, 'boot/kernel'),
    initrd: join(dir, 'boot/initrd'),
    holds: new Set(),
    bootFiles: '/lab/boot',
    manifest,
  }
}

/**
 * Makes a disk of a root file system: its ESP and its partition table around it, and beside it what layers
 * are made against, `esp.img` and `root.meta` (the file system's metadata alone).
 * @param raw the disk, which has the root at its place and else nothing
 */
export async function finishBase(
  dir: string,
  raw: string,
  partitions: NamedPartition[],
  files: EspFiles,
  espArgs?: string[],
): Promise<void> {
  const image = join(dir, 'esp.img')
  await makeEsp(image, partitions[0]!.size, files, espArgs)
  await putInto(raw, partitions[0]!, image)
  await writeTable(raw, partitions)
  const { start } = partitions.at(-1)!
  const meta = join(dir, 'root.meta')
  await run('e2image', ['-r', '-o', String(start), raw, meta], { timeout: 600 })
}

/**
 * A cheap checksum (3 MB are read, whatever the size): the first and the last MiB and 256 blocks of
 * 4 KiB evenly spaced between. With the exact size it tells a file that was cut short, also one
 * that was then filled up with zeros. A flipped bit elsewhere it does not see.
 */
export function fingerprint(path: string): string {
  const fd = openSync(path, 'r')
  try {
    const hash = createHash('sha256')
    const { size } = fstatSync(fd)
    const add = (position: number, length: number): void => {
      const buffer = Buffer.alloc(length)
      hash.update(buffer.subarray(0, readSync(fd, buffer, 0, length, position)))
    }
    add(0, mib)
    for (let i = 1; i <= 256; i++) add(Math.floor((size * i) / 257), 4096)
    add(Math.max(0, size - mib), mib)
    return hash.digest('hex')
  } finally {
    closeSync(fd)
  }
}

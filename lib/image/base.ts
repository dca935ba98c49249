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

/** The record of how an image was built, with the package versions that the mirror had. */
export interface Manifest {
  suite: string
  mirror: string
  /** Versions by Debian package. */
  packages: Record<string, string>
  /** Stages of the build in order; `mb` is the size of the build directory after the stage. */
  stages: { name: string; seconds: number; mb: number }[]
  /** Bytes of base.raw: its length, and the space that it takes on the disk. */
  size: number
  allocated: number
  /** See `fingerprint`. */
  fingerprint: string
}

/** An image that layers are made on, with `esp.img` and `root.meta` in its directory (see `finishBase`). */
export interface Base {
  /** Its contents never change, because overlays refer to them: another build gets another directory. */
  dir: string
  raw: string
  /** The ESP is first. The root is last, and a layer enlarges it to fill its disk. */
  partitions: NamedPartition[]
  esp: Partition
  root: Partition
  /** Paths on this machine of the files in its ESP. */
  kernel: string
  initrd: string
  /** Store paths that its root holds. */
  holds: ReadonlySet<string>
  /** Directory in its root with copies of kernel and initrd, which a layer can hard-link. */
  bootFiles?: string
}

/** The base of the embedded guest. */
export interface BaseImage extends Base {
  manifest: Manifest
}

export interface ImageOptions {
  /** Default `labCache()`. */
  cache?: string
  /** Default `LAB_DEBIAN_MIRROR`, else the mirror that apt is configured with. */
  mirror?: string
  /** Default `LAB_DEBIAN_SUITE`, else forky. */
  suite?: string
  /** Builds the image again, with the mirror's present versions, even if one is cached. */
  fresh?: boolean
  onProgress?: (line: string) => void
  signal?: AbortSignal
}

/** The directory of the files that build a base image. */
export const recipe = join(project, 'nix/lab/image')
const esp: NamedPartition = { start: mib, size: 264 * mib, type: 'uefi', name: 'ESP' }
const root: NamedPartition = { start: 265 * mib, size: 1536 * mib, type: 'linux', name: 'nixos' }
/** The layout of the embedded guest's disk. */
export const layout = { esp, root, partitions: [esp, root] }

/** The Debian suite that an image is made from. */
export const suiteOf = (options: ImageOptions): string =>
  options.suite ?? (process.env['LAB_DEBIAN_SUITE'] || 'forky')

/**
 * The hash of the inputs of a base image that are known beforehand: the recipe's files and the suite.
 * Package versions change with the mirror; they are in the manifest instead, and `fresh` gets new ones.
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
 * Completes a disk that has only its root file system: adds the ESP and the partition table, and writes
 * `esp.img` and `root.meta` (only the file system's metadata) beside it, which layers are compared with.
 * @param raw the disk, with nothing but the root at its place
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
 * A cheap checksum (it reads 3 MB, whatever the size): the first and the last MiB and 256 blocks of
 * 4 KiB evenly spaced between. Together with the exact size it detects a truncated file, even one
 * that was then padded with zeros. It does not detect a flipped bit elsewhere.
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

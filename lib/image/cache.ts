import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { lock } from '../lock.ts'
import { run } from '../run.ts'
import { standsOn } from './qcow2.ts'

const making = '.making-'

interface Wanted<T> {
  /** Directory of the cache, and the key of the item in it. */
  dir: string
  key: string
  /** Name of the work in messages to tasks that wait: `make the disk of sorrow`. */
  what: string
  /** Seconds to wait for another task that makes the same item. */
  wait: number
  say?: (line: string) => void
  /** The item, if it exists already. */
  find: () => T | undefined | Promise<T | undefined>
  /** Makes the item in the directory `work`, and moves it by rename to where `find` looks. */
  make: (work: string) => Promise<T>
}

/**
 * Finds an item in a cache, or makes it, one task at a time. Removes everything that killed tasks have left
 * unfinished in the cache.
 * @throws Failure
 */
export async function cached<T>({ dir, key, what, wait, say, find, make }: Wanted<T>): Promise<T> {
  mkdirSync(dir, { recursive: true })
  await clearLeftOvers(dir)
  const found = await find()
  if (found !== undefined) return found
  const held = await lock(join(dir, `${key}.lock`), what, { wait, say })
  const work = join(dir, `${making}${key}`)
  try {
    const now = await find()
    if (now !== undefined) return now
    // this task holds the lock, so a killed task left this
    await removeTree(work)
    mkdirSync(work)
    return await make(work)
  } finally {
    await removeTree(work)
    held.release()
  }
}

/** Removes the work of killed tasks, which is the work whose lock is free. */
async function clearLeftOvers(dir: string): Promise<void> {
  for (const name of readdirSync(dir).filter((one) => one.startsWith(making))) {
    const path = join(dir, `${name.slice(making.length)}.lock`)
    const held = await lock(path, 'clear what is left of a disk').catch(() => undefined)
    if (!held) continue
    await removeTree(join(dir, name))
    held.release()
  }
}

/** Removes a directory tree, in which a copy of a store may have read-only directories. */
async function removeTree(dir: string): Promise<void> {
  if (!existsSync(dir)) return
  await run('chmod', ['-R', 'u+w', dir], { timeout: 600 })
  rmSync(dir, { recursive: true, force: true })
}

/** Seconds that an image is kept after it was chosen, because the disk on it is made a moment later. */
const grace = 600

/**
 * Records that a VM's disk is an overlay on an image, or will be in a moment. Deletes the other images beside it,
 * except the newest few and those below a disk, because a whole closure takes 1 GB each time. If the image is a
 * layer, does the same to the NixOS bases beside its own, each with all its layers.
 * @param disk the disk that the image is chosen for; a cache may serve several LAB_HOMEs
 * @param others more disks to check, which may be on images from before such records were kept
 * @param keep number of images to keep in any case, those that were last chosen most recently
 */
export async function chooseImage(
  image: string,
  disk: string,
  others: string[],
  keep = 3,
): Promise<void> {
  const now = new Date()
  utimesSync(image, now, now)
  if (!disksOn(image).includes(disk)) appendFileSync(listOf(image), `${disk}\n`)
  const layers = dirname(image)
  for (const path of olderThan(image, isImage, lastChosen, keep)) {
    if (await isStoodOn(path, others)) continue
    rmSync(path, { force: true })
    rmSync(listOf(path), { force: true })
  }
  if (basename(layers) !== 'layers') return
  const base = dirname(layers)
  const newest = (dir: string): number =>
    Math.max(lastChosen(dir), ...layersOf(dir).map((layer) => lastChosen(layer)))
  for (const dir of olderThan(base, isBase, newest, keep)) {
    const stood = await Promise.all(layersOf(dir).map((layer) => isStoodOn(layer, others)))
    if (stood.includes(true)) continue
    try {
      // other tasks stop finding it as a base at once, however long deleting it takes
      renameSync(dir, join(dirname(dir), `${making}${basename(dir)}`))
    } catch {
      // another task was first
    }
  }
  await clearLeftOvers(dirname(base))
}

/** The entries beside `path`, without the newest `keep` and those chosen in the last `grace` seconds. */
function olderThan(
  path: string,
  wanted: (name: string) => boolean,
  chosen: (path: string) => number,
  keep: number,
): string[] {
  const dir = dirname(path)
  return readdirSync(dir)
    .filter((name) => wanted(name) && name !== basename(path))
    .map((name) => ({ path: join(dir, name), at: chosen(join(dir, name)) }))
    .toSorted((a, b) => b.at - a.at)
    .slice(keep - 1)
    .filter(({ at }) => at < Date.now() - grace * 1000)
    .map((one) => one.path)
}

async function isStoodOn(image: string, others: string[]): Promise<boolean> {
  const disks = [...new Set([...disksOn(image), ...others])].filter((each) => existsSync(each))
  const stand = await Promise.all(disks.map((each) => standsOn(each, image)))
  return stand.includes(true)
}

const isImage = (name: string): boolean => /^[0-9a-f]{16}\.qcow2$/.test(name)
/** Whether `ensureNixosDisk` names an ext4 base so; the embedded guest's images have other names. */
const isBase = (name: string): boolean => /^[0-9a-f]{16}-[0-9a-f]{16}$/.test(name)

const layersOf = (base: string): string[] => {
  const dir = join(base, 'layers')
  if (!existsSync(dir)) return []
  return readdirSync(dir)
    .filter(isImage)
    .map((name) => join(dir, name))
}

const lastChosen = (path: string): number => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0

const listOf = (image: string): string => `${image}.disks`

const disksOn = (image: string): string[] =>
  existsSync(listOf(image)) ? readFileSync(listOf(image), 'utf8').split('\n').filter(Boolean) : []

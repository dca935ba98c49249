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
  /** Directory of the cache, and what this one is called in it. */
  dir: string
  key: string
  /** For whoever has to wait, as `make the disk of sorrow`. */
  what: string
  /** Seconds to wait for another task that makes the very same. */
  wait: number
  say?: (line: string) => void
  /** What is there already. */
  find: () => T | undefined | Promise<T | undefined>
  /** Makes it in a directory of its own, and moves it by rename to where it is found. */
  make: (work: string) => Promise<T>
}

/**
 * What a cache has under a key, else makes it, one task at a time. What tasks that were killed have left
 * half-made of this or anything else in the cache is removed.
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
    // the lock is ours: this is of a task that was killed
    await removeTree(work)
    mkdirSync(work)
    return await make(work)
  } finally {
    await removeTree(work)
    held.release()
  }
}

/** Nobody has the lock of a killed task any more. */
async function clearLeftOvers(dir: string): Promise<void> {
  for (const name of readdirSync(dir).filter((one) => one.startsWith(making))) {
    const path = join(dir, `${name.slice(making.length)}.lock`)
    const held = await lock(path, 'clear what is left of a disk').catch(() => undefined)
    if (!held) continue
    await removeTree(join(dir, name))
    held.release()
  }
}

/** A copy of a store has directories that may not be written to. */
async function removeTree(dir: string): Promise<void> {
  if (!existsSync(dir)) return
  await run('chmod', ['-R', 'u+w', dir], { timeout: 600 })
  rmSync(dir, { recursive: true, force: true })
}

/** Seconds that an image is kept after it was chosen: the disk that is to stand on it comes a moment later. */
const grace = 600

/**
 * Notes that a VM's disk stands on an image, or will in a moment, and deletes those beside it that are older
 * than the newest few and on which no disk stands. A whole closure takes 1 GB each time. Where the image is a
 * layer, this goes for the NixOS bases beside its own as well, each with all its layers.
 * @param disk that it is chosen for; a cache may serve several LAB_HOMEs
 * @param others disks that may stand on images from before this was noted
 * @param keep images to keep in any case, by when they were last chosen
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
      // it is gone at once for whoever looks for a base, however long it takes to delete
      renameSync(dir, join(dirname(dir), `${making}${basename(dir)}`))
    } catch {
      // another task was first
    }
  }
  await clearLeftOvers(dirname(base))
}

/** Those beside `path` that were last chosen before the newest few, and not a moment ago. */
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
/** As `ensureNixosDisk` calls the bases of ext4; the embedded guest's images have other names. */
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

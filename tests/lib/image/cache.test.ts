import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { cached, chooseImage } from '../../../lib/image/cache.ts'
import { createOverlay } from '../../../lib/image/qcow2.ts'
import { lock } from '../../../lib/lock.ts'

let dir: string
let images: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lab-cache-'))
  images = join(dir, 'images')
  mkdirSync(images)
})
afterEach(() => rmSync(dir, { recursive: true }))

const size = 1024 ** 2

/** An image that was last chosen so many hours ago. */
function image(digit: number, hours: number): string {
  const path = join(images, `${String(digit).repeat(16)}.qcow2`)
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(size)])
  const then = Date.now() / 1000 - hours * 3600
  utimesSync(path, then, then)
  return path
}

const left = (): string[] =>
  readdirSync(images)
    .filter((name) => name.endsWith('.qcow2'))
    .map((name) => name[0]!)
    .toSorted()

test('The newest images are kept, and those that a disk of any lab is based on', async () => {
  const paths = [1, 2, 3, 4, 5, 6, 7].map((digit) => image(digit, digit))
  // one noted by another lab; one from before disks were noted; one noted whose disk was moved to another image
  const [other, old, moved] = ['other', 'old', 'moved'].map((name) => join(dir, name))
  await chooseImage(paths[5]!, other!, [], 9)
  await createOverlay(paths[5]!, other!, size)
  await createOverlay(paths[4]!, old!, size)
  await chooseImage(paths[6]!, moved!, [], 9)
  await createOverlay(paths[0]!, moved!, size)
  const long = Date.now() / 1000 - 9 * 3600
  for (const path of [paths[5]!, paths[6]!]) utimesSync(path, long, long)

  await chooseImage(image(8, 0), join(dir, 'new'), [old!])
  // 8, 1 and 2 are the newest; disks stand on 5 and 6
  expect(left()).toEqual(['1', '2', '5', '6', '8'])
  expect(existsSync(`${paths[6]}.disks`)).toBe(false)

  rmSync(other!)
  await chooseImage(paths[0]!, moved!, [])
  expect(left()).toEqual(['1', '2', '8'])
})

test('An image that another task has just chosen is kept, although no disk uses it yet', async () => {
  for (const digit of [1, 2, 3, 4, 5]) image(digit, 0.01 * digit)
  await chooseImage(image(6, 0), join(dir, 'new'), [])
  expect(left()).toEqual(['1', '2', '3', '4', '5', '6'])
})

test('While a disk cannot be read, no image is removed; files of other kinds are never touched', async () => {
  for (const digit of [1, 2, 3]) image(digit, digit)
  writeFileSync(join(images, 'kept.qcow2'), 'of a person')
  const damaged = join(dir, 'damaged')
  writeFileSync(damaged, 'no disk')
  await chooseImage(image(4, 0), join(dir, 'new'), [damaged], 1)
  expect(left()).toEqual(['1', '2', '3', '4', 'k'])
  await chooseImage(image(4, 0), join(dir, 'new'), [], 1)
  expect(left()).toEqual(['4', 'k'])
})

/** Makes an ext4 base whose only layer was chosen so many hours ago; returns that layer. */
function base(digit: number, hours: number): string {
  const hash = String(digit).repeat(16)
  const made = join(images, `${'a'.repeat(16)}-${hash}`)
  mkdirSync(join(made, 'layers'), { recursive: true })
  execFileSync('truncate', ['--size', String(size), join(made, 'base.raw')])
  const layer = join(made, 'layers', `${hash}.qcow2`)
  const over = ['-b', join(made, 'base.raw'), '-F', 'raw', layer]
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...over])
  const then = Date.now() / 1000 - hours * 3600
  for (const path of [layer, made]) utimesSync(path, then, then)
  return layer
}

const bases = (): string[] =>
  readdirSync(images)
    .filter((name) => !name.endsWith('.lock'))
    .map((name) => name.at(-1)!)
    .toSorted()

test('The newest ext4 bases are kept, and those that a disk is based on through any layer', async () => {
  const layers = [1, 2, 3, 4, 5, 6].map((digit) => base(digit, digit))
  // the embedded guest's image, which is chosen by its recipe
  const embedded = join(images, `${'a'.repeat(16)}-mwxaqvub`)
  mkdirSync(embedded)
  utimesSync(embedded, 1, 1)
  const disk = join(dir, 'disk')
  await createOverlay(layers[3]!, disk, size)
  // a base that another task has just found, before it makes its layer
  const found = dirname(dirname(layers[4]!))
  utimesSync(found, new Date(), new Date())

  await chooseImage(base(7, 0), join(dir, 'new'), [disk], 2)
  // 7 is the newest, 5 has just been found, and a disk stands on 4
  expect(bases()).toEqual(['4', '5', '7', 'b'])

  rmSync(disk)
  for (const path of [layers[3]!, dirname(dirname(layers[3]!)), found]) utimesSync(path, 1, 1)
  await chooseImage(base(7, 0), join(dir, 'new'), [disk], 1)
  expect(bases()).toEqual(['7', 'b'])
})

test('Of the layers of one base the newest are kept', async () => {
  const newest = base(1, 0)
  const layers = dirname(newest)
  for (const digit of [2, 3, 4]) {
    const path = join(layers, `${String(digit).repeat(16)}.qcow2`)
    execFileSync('cp', ['--preserve=timestamps', newest, path])
    utimesSync(path, digit, 10 - digit)
  }
  await chooseImage(newest, join(dir, 'new'), [])
  expect(readdirSync(layers).filter((name) => name.endsWith('.qcow2'))).toEqual(
    [1, 2, 3].map((digit) => `${String(digit).repeat(16)}.qcow2`),
  )
  expect(bases()).toEqual(['1'])
})

const wanted = {
  ...{ key: 'one', what: 'make it', wait: 5 },
  find: () => (existsSync(join(images, 'one')) ? 'found' : undefined),
  make: async (work: string) => {
    writeFileSync(join(images, 'one'), work)
    return 'made'
  },
}

test('A cached file is made once, even if two tasks want it at the same time', async () => {
  const one = { dir: images, ...wanted }
  expect((await Promise.all([cached(one), cached(one)])).toSorted()).toEqual(['found', 'made'])
  expect(await cached(one)).toBe('found')
  expect(readdirSync(images).toSorted()).toEqual(['one', 'one.lock'])
})

test('Any task removes the work of killed tasks, but not what is being made', async () => {
  for (const key of ['killed', 'busy']) {
    mkdirSync(join(images, `.making-${key}`, 'store'), { recursive: true })
    writeFileSync(join(images, `.making-${key}`, 'store', 'file'), '')
    chmodSync(join(images, `.making-${key}`, 'store'), 0o555)
  }
  writeFileSync(join(images, 'one'), '')
  const busy = await lock(join(images, 'busy.lock'), 'make busy')
  expect(await cached({ dir: images, ...wanted })).toBe('found')
  expect(existsSync(join(images, '.making-killed'))).toBe(false)
  expect(existsSync(join(images, '.making-busy/store/file'))).toBe(true)
  busy.release()
  expect(await cached({ dir: images, ...wanted })).toBe('found')
  expect(existsSync(join(images, '.making-busy'))).toBe(false)
})

test('If making a cached file fails, no partial file is left', async () => {
  const fails = async (work: string): Promise<string> => {
    writeFileSync(join(work, 'half'), '')
    throw new Error('no')
  }
  await expect(cached({ dir: images, ...wanted, make: fails })).rejects.toThrow('no')
  expect(readdirSync(images)).toEqual(['one.lock'])
})

import {
  readFileSync,
  readdirSync,
  readlinkSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { BaseImage } from '../../lib/image/base.ts'
import { ensureBaseImage } from '../../lib/image/image.ts'
import { storeOptions } from '../../lib/nix/store.ts'
import { ensureHostLayer } from '../../lib/image/layer.ts'
import { checkDisk, createOverlay } from '../../lib/image/qcow2.ts'
import { nix } from '../../lib/nix/nix.ts'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { debugfs, espOf, expectStore, onEsp, partitionsOf } from '../disk-contents.ts'
import { makeLab, type Lab } from '../lab.ts'

const gib = 1024 ** 3
const size = 6 * gib
let lab: Lab
let base: BaseImage
let store: string[]

/** Builds the toplevel of sorrow with an extra line. */
async function build(line: string): Promise<string> {
  const expr = `((import ${project}/nix/lab).labSystem { hostname = "sorrow"; modules = [ { ${line} } ]; }).config.system.build.toplevel`
  const { stdout } = await nix([
    'build',
    ...store,
    '--impure',
    '--no-link',
    '--json',
    '--expr',
    expr,
  ])
  return (JSON.parse(stdout) as { outputs: { out: string } }[])[0]!.outputs.out
}

beforeAll(async () => {
  lab = makeLab()
  base = await ensureBaseImage({
    cache: lab.env['LAB_CACHE']!,
    onProgress: (line) => {
      if (!line.includes(' s of at most ')) console.log(line)
    },
  })
  store = storeOptions(base)
})
afterAll(() => lab.remove())

test('a host layer contains generation 1, on error-free file systems', async () => {
  const toplevel = await build('environment.etc.layer.text = "one";')
  const layer = await ensureHostLayer(base, { toplevel, store, host: 'sorrow', size })
  const disk = join(lab.dir, 'disk.raw')
  const esp = join(lab.dir, 'esp.img')
  await run('qemu-img', ['convert', '-O', 'raw', layer, disk])
  expect(statSync(disk).size).toBe(size)
  const root = (await partitionsOf(disk)).at(-1)!
  await espOf(disk, esp, base.esp.size / 1024 ** 2)
  const entry = await onEsp(esp, 'loader/entries/nixos-generation-1.conf')
  expect(entry).toContain(`options init=${toplevel}/init `)
  expect(await onEsp(esp, 'loader/loader.conf')).toBe(
    'timeout 0\ndefault nixos-generation-1.conf\n',
  )

  const image = `${disk}?offset=${root.start * 512}`
  await run('e2fsck', ['-fn', image])
  const ask = debugfs(image)
  await ask(`rdump /nix/var/nix/profiles ${lab.dir}`)
  expect(readlinkSync(join(lab.dir, 'profiles/system'))).toBe('system-1-link')
  expect(readlinkSync(join(lab.dir, 'profiles/system-1-link'))).toBe(toplevel)
  expect(await ask(`cat ${toplevel}/etc/layer`)).toBe('one')
  expect(await ask(`stat ${toplevel}/init`)).toMatch(/Mode: +0?555[\s\S]*User: +0 +Group: +0/)
  expect(await ask(`stat ${toplevel}/init`)).toContain('mtime: 0x00000001')
  // the kernel is the image's own file under a second name
  expect(await ask('stat /lab/boot/kernel')).toContain('Links: 2')

  // and Nix finds these files valid
  await expectStore(image, toplevel, join(lab.dir, 'within'))
})

test('a layer for another host or system is small and quick, and for the same one is reused', async () => {
  const toplevel = await build('environment.etc.layer.text = "two";')
  const from = performance.now()
  const layer = await ensureHostLayer(base, { toplevel, store, host: 'torment', size })
  expect((performance.now() - from) / 1000).toBeLessThan(10)
  expect(statSync(layer).blocks * 512).toBeLessThan(8e6)
  const { mtimeMs } = statSync(layer)
  expect(await ensureHostLayer(base, { toplevel, store, host: 'torment', size })).toBe(layer)
  expect(statSync(layer).mtimeMs).toBe(mtimeMs)

  // a truncated layer is detected and made again
  truncateSync(layer, statSync(layer).size / 2)
  await expect(checkDisk(layer)).rejects.toThrow('Cannot use the disk')
  await ensureHostLayer(base, { toplevel, store, host: 'torment', size })
  await checkDisk(layer)
})

test('a new overlay is empty and has the requested size, and damage to it is detected', async () => {
  const toplevel = await build('environment.etc.layer.text = "two";')
  const layer = await ensureHostLayer(base, { toplevel, store, host: 'torment', size })
  const disk = join(lab.dir, 'overlay.qcow2')
  await createOverlay(layer, disk, size)
  expect(statSync(disk).blocks * 512).toBeLessThan(1e6)
  await checkDisk(disk)
  await run('qemu-io', ['-c', 'write -P 7 1G 1M', disk])
  await checkDisk(disk)
  const { size: full } = statSync(disk)
  truncateSync(disk, full - 512 * 1024)
  await expect(checkDisk(disk)).rejects.toThrow(`Cannot use the disk \`${disk}\``)
  const broken = readFileSync(disk).fill(0, 0, 512)
  writeFileSync(disk, broken)
  await expect(checkDisk(disk)).rejects.toThrow(`Cannot use the disk \`${disk}\``)
})

test('a disk too small for the root file system is refused, and no partial file is left', async () => {
  const toplevel = await build('environment.etc.layer.text = "two";')
  await expect(
    ensureHostLayer(base, { toplevel, store, host: 'torment', size: gib }),
  ).rejects.toThrow('Cannot make a disk of 1024 MiB')
  const names = readdirSync(join(base.dir, 'layers'))
  expect(names.filter((name) => name.startsWith('.making'))).toEqual([])
})

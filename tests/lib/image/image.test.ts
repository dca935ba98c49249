import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { fingerprint, imageKey, type BaseImage } from '../../../lib/image/base.ts'
import { debianMirror, ensureBaseImage } from '../../../lib/image/image.ts'
import { storeOptions, evaluationStore } from '../../../lib/nix/store.ts'
import { run } from '../../../lib/run.ts'

function scratch(): string {
  const dir = mkdtempSync(join(tmpdir(), 'lab-image-'))
  // the ids of a user namespace must be able to enter
  chmodSync(dir, 0o711)
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** An address where nothing answers. */
const nowhere = 'http://127.0.0.1:9/debian'

test('The mirror is the one that apt uses, unless LAB_DEBIAN_MIRROR names another', async () => {
  expect(await debianMirror()).toMatch(/^[a-z+]+:\/\/\S+\/debian$/)
  vi.stubEnv('LAB_DEBIAN_MIRROR', nowhere)
  onTestFinished(() => void vi.unstubAllEnvs())
  expect(await debianMirror()).toBe(nowhere)
})

test('A mirror that does not answer is reported in one line, and no files are left', async () => {
  const cache = scratch()
  const lines: string[] = []
  const failed = ensureBaseImage({ cache, mirror: nowhere, onProgress: (line) => lines.push(line) })
  await expect(failed).rejects.toThrow(
    `Cannot build the base image: the mirror ${nowhere} does not answer`,
  )
  await expect(failed).rejects.toBeInstanceOf(Failure)
  expect(lines.at(-1)).toBe('')
  for (const line of lines.slice(0, -1)) {
    expect(line).toMatch(/^base image: Debian packages: \d+ s of at most 1800 s$/)
  }
  expect(readdirSync(join(cache, 'images'))).toEqual(['lock'])
})

test('The leftovers of a killed builder are removed, whoever owns the files', async () => {
  const cache = scratch()
  const left = join(cache, 'images/.building-x-1/root')
  mkdirSync(left, { recursive: true })
  const users = process.getuid?.() === 0 ? [] : ['--user', '--map-auto', '--map-root-user']
  await run('unshare', [
    ...users,
    '--mount',
    'sh',
    '-c',
    `mkdir ${left}/d && touch ${left}/d/f && chown -R 42:42 ${left}/d && chmod 500 ${left}/d`,
  ])
  await ensureBaseImage({ cache, mirror: nowhere }).catch(() => {})
  expect(readdirSync(join(cache, 'images'))).toEqual(['lock'])
})

test('Of two simultaneous builders the second waits, and names the first', async () => {
  const cache = scratch()
  const waits: string[] = []
  const build = () =>
    ensureBaseImage({
      cache,
      mirror: nowhere,
      onProgress: (line) => waits.push(...(line.includes('waiting') ? [line] : [])),
    }).catch((error: Failure) => error.message)
  const [one, two] = await Promise.all([build(), build()])
  expect(one).toBe(two)
  // the lock names no holder before the first has written its name, nor after it has released the lock
  const named = waits.filter((wait) => !wait.includes('waiting for another task'))
  expect(named.length).toBeGreaterThan(0)
  for (const wait of named) {
    expect(wait).toMatch(/^base image: waiting for .*\(pid \d+\): \d+ s of at most 900 s$/)
  }
})

test('An image that differs from its manifest is rebuilt, and a line says so', async () => {
  // everything that the check of an image looks at
  const cache = scratch()
  const dir = join(cache, 'images', `${imageKey()}-1`)
  for (const sub of ['boot', 'bin']) mkdirSync(join(dir, sub), { recursive: true })
  for (const file of ['root.meta', 'esp.img', 'boot/kernel', 'boot/initrd', 'bin/busybox']) {
    writeFileSync(join(dir, file), '')
  }
  const raw = join(dir, 'base.raw')
  writeFileSync(raw, Buffer.alloc(4 * 1024 ** 2, 'disk'))
  const manifest = { size: 4 * 1024 ** 2, fingerprint: fingerprint(raw) }
  writeFileSync(join(dir, 'manifest.json'), JSON.stringify(manifest))
  symlinkSync(basename(dir), join(cache, 'images', imageKey()))
  const lines: string[] = []
  const ensure = () => ensureBaseImage({ cache, mirror: nowhere, onProgress: (l) => lines.push(l) })

  const image = await ensure()
  expect(image.dir).toBe(realpathSync(dir))
  expect(lines).toEqual([])

  truncateSync(raw, 3 * 1024 ** 2)
  await expect(ensure()).rejects.toThrow('does not answer')
  expect(lines[0]).toBe('base image: it is cut short (3145728 of 4194304 bytes); building it again')

  lines.length = 0
  truncateSync(raw, 4 * 1024 ** 2)
  await expect(ensure()).rejects.toThrow('does not answer')
  expect(lines[0]).toBe('base image: it is not what was built; building it again')

  // disks of VMs stand on it, so it stays until another has been made
  expect(existsSync(raw)).toBe(true)
})

test('A cache path that Nix cannot use for a store is refused', () => {
  expect(() => storeOptions({ dir: '/a b' } as BaseImage)).toThrow('Cannot keep a Nix store in')
})

test('Evaluation needs no image', async () => {
  const cache = scratch()
  const { stdout } = await run('nix-instantiate', [
    ...evaluationStore({ cache }),
    '--eval',
    '-E',
    '1 + 1',
  ])
  expect(stdout.trim()).toBe('2')
})

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { givenImage } from '../../../lib/image/nixos.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lab-image-'))
})
afterEach(() => {
  delete process.env['LAB_NIXOS_IMAGE']
  rmSync(dir, { recursive: true })
})

const given = (path: string): Promise<string | undefined> => {
  process.env['LAB_NIXOS_IMAGE'] = path
  return givenImage()
}

test('A given image is used unchanged', async () => {
  const path = join(dir, 'disk.qcow2')
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, '1G'])
  expect(await given(path)).toBe(path)
})

test('An image that is missing, or is not an image, is reported in one line', async () => {
  await expect(given(join(dir, 'none.qcow2'))).rejects.toThrow(/Cannot find the image `.*none/)
  const path = join(dir, 'text.qcow2')
  writeFileSync(path, 'no image')
  await expect(given(path)).rejects.toThrow(/Cannot use the disk `.*text\.qcow2`/)
})

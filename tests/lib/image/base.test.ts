import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { fingerprint, imageKey } from '../../../lib/image/base.ts'

test('The image key depends on the suite, but not on the mirror or the cache', () => {
  expect(imageKey({ suite: 'forky' })).toMatch(/^[0-9a-f]{16}$/)
  expect(imageKey({ suite: 'forky', mirror: 'a', cache: 'b' })).toBe(imageKey({ suite: 'forky' }))
  expect(imageKey({ suite: 'sid' })).not.toBe(imageKey({ suite: 'forky' }))
})

test('A truncated file has another fingerprint, even when padded to its old size', () => {
  const dir = mkdtempSync(join(tmpdir(), 'lab-image-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const path = join(dir, 'disk')
  writeFileSync(path, Buffer.alloc(8 * 1024 ** 2, 'content of a disk '))
  const whole = fingerprint(path)
  expect(fingerprint(path)).toBe(whole)
  truncateSync(path, 8 * 1024 ** 2 - 4096)
  expect(fingerprint(path)).not.toBe(whole)
  truncateSync(path, 8 * 1024 ** 2)
  expect(fingerprint(path)).not.toBe(whole)
})

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { putBack } from '../../../lib/scenario/case.ts'
import type { Stage } from '../../../lib/scenario/family.ts'
import type { Machine } from '../../../lib/scenario/machine.ts'
import { Lost } from '../../../lib/share.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'put-back-'))
  vi.stubEnv('LAB_HOME', dir)
})
afterEach(() => {
  rmSync(dir, { recursive: true })
  vi.unstubAllEnvs()
})

const vm = (thrown?: unknown): Machine =>
  ({
    restore: async () => (thrown === undefined ? undefined : Promise.reject(thrown)),
  }) as never
const stage = (shares?: boolean): Stage => ({ shares }) as never
const why = new Failure('Cannot put `sorrow` back', { evidence: 'its disk' })

test('a lab whose VMs cannot be put back is given up only if another lab can run its cases', async () => {
  await expect(putBack([vm(), vm()], stage(true))).resolves.toBeUndefined()
  await expect(putBack([vm(), vm(why)], stage())).rejects.toBe(why)
  const lost = await putBack([vm(), vm(why)], stage(true)).catch((thrown: unknown) => thrown)
  expect(lost).toBeInstanceOf(Lost)
  expect(lost).toMatchObject({ message: why.message, detail: { evidence: 'its disk' } })
  const bug = new TypeError('a bug')
  await expect(putBack([vm(bug)], stage(true))).rejects.toBe(bug)
})

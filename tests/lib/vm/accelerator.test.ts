import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { emulatedCpus, findAccelerator } from '../../../lib/vm/accelerator.ts'

test.each([
  ['QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)', 1],
  ['QEMU emulator version 8.0.5', 1],
  ['QEMU emulator version 8.1.0', 2],
  ['QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)', 2],
  // an unknown version counts as a new one
  ['', 2],
])('%s emulates %d CPUs', (said, cpus) => {
  expect(emulatedCpus(said)).toBe(cpus)
})

test('an unreadable cached result is determined again', async () => {
  const cache = mkdtempSync(join(tmpdir(), 'accelerator-'))
  onTestFinished(() => {
    vi.unstubAllEnvs()
    rmSync(cache, { recursive: true })
  })
  vi.stubEnv('LAB_CACHE', cache)
  vi.stubEnv('LAB_ACCEL', 'auto')
  const memory = join(cache, 'accelerator.json')
  writeFileSync(memory, '')
  const none = { code: '/nonexistent', vars: '/nonexistent' }
  expect(['kvm', 'tcg']).toContain((await findAccelerator(none)).kind)
  expect(JSON.parse(readFileSync(memory, 'utf8'))).toHaveProperty('problem')
})

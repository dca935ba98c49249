import { once } from 'node:events'
import { createServer } from 'node:net'
import { afterEach, expect, test, vi } from 'vitest'
import { freePort } from '../../../lib/vm/port.ts'

afterEach(() => vi.unstubAllEnvs())

test('a VM whose port is taken gets the next free one after it', async () => {
  const other = createServer()
  const port = 21_000 + (process.pid % 9000)
  await once(other.listen(port, '127.0.0.1'), 'listening')
  vi.stubEnv('LAB_SSH_PORT', String(port))
  try {
    expect(await freePort(1, new Set([port + 1]))).toBeGreaterThan(port + 1)
    expect(await freePort(1, new Set())).toBeLessThan(port + 400)
  } finally {
    other.close()
  }
})

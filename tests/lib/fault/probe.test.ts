import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { watchCarrier } from '../../../lib/fault/probe.ts'
import type { GuestAgent } from '../../../lib/vm/guest-agent.ts'

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'carrier-'))
})
afterAll(() => rmSync(dir, { recursive: true }))

/** A guest whose link is a local file, and that runs these commands after every sleep. */
const guest = (after: string): GuestAgent => {
  const exec = async (_: string, argv: string[] = [], { input = '' } = {}) => {
    const here = String(input).replaceAll('/sys/class/net/uplink', dir)
    const stdout = execFileSync('sh', argv, {
      input: `sleep() { command sleep "$1"; ${after}; }\n${here}`,
      encoding: 'utf8',
    })
    return { stdout, stderr: '', code: 0 }
  }
  return { exec, close: () => {} } as unknown as GuestAgent
}

test('a link without carrier is detected, even if the guest stalls during the watch', async () => {
  writeFileSync(join(dir, 'carrier'), '0\n')
  expect(await watchCarrier(guest(':'), 'uplink', 0.5)).toEqual({ without: 1, changes: 0 })
  expect(await watchCarrier(guest('command sleep 1'), 'uplink', 0.5)).toEqual({
    without: 1,
    changes: 0,
  })
})

test('for a flapping carrier the share of time without it is measured', async () => {
  writeFileSync(join(dir, 'carrier'), '1\n')
  const flaps = `read -r was <${dir}/carrier; echo $((1 - was)) >${dir}/carrier`
  const { without, changes } = await watchCarrier(guest(flaps), 'uplink', 1)
  expect(changes).toBeGreaterThanOrEqual(5)
  expect(without).toBeGreaterThan(0.3)
  expect(without).toBeLessThan(0.7)
})

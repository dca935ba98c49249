import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Listed } from '../../lib/fault/lease.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
beforeAll(async () => {
  lab = makeLab()
  const { code, stderr } = await lab.task('deploy-vm', 'sorrow', 'torment')
  if (code !== 0) throw new Error(stderr)
})
afterAll(() => lab.remove())

const chaos = (...args: string[]) => lab.task('chaos-network', ...args)
const record = (host = 'sorrow'): string => join(lab.env['LAB_HOME']!, 'vms', host, 'faults.json')
const listed = async (): Promise<Listed[]> =>
  JSON.parse((await chaos('list', '--json')).stdout) as Listed[]
const guest = async (command: string): Promise<string> =>
  (await lab.task('ssh', 'sorrow', '--root', '--', command)).stdout.trim()
const rules = (): Promise<string> =>
  guest('tc qdisc show | grep -cE "netem|clsact"; cat /sys/class/net/uplink/carrier')

/** Waits for what the end of a lease does by itself; at most `limit` seconds. */
async function until(limit: number, holds: () => Promise<boolean>): Promise<void> {
  for (const end = performance.now() + limit * 1000; !(await holds());) {
    if (performance.now() > end) throw new Error(`It did not come within ${limit} s`)
    await new Promise((resolve) => setTimeout(resolve, 1000))
  }
}

test.each([
  ['loss', '--link', 'uplink', '--host', 'sorrow', '--percent', '30', '--direction', 'both'],
  ['delay', '--link', 'lan', '--host', 'torment', '--ms', '150'],
  ['cut', '--link', 'uplink', '--host', 'sorrow'],
  ['one-way', '--link', 'lan', '--host', 'sorrow', '--direction', 'in'],
  ['partition', '--host', 'sorrow', '--host', 'torment'],
  ['dns', '--host', 'sorrow'],
])('%s takes effect, is listed, and heals', async (...fault) => {
  const injected = await chaos(...fault, '--for', '10m')
  expect(injected, injected.stderr).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^bites: /m),
  })
  expect(await listed()).toMatchObject(
    fault.filter((word) => word === '--host').map(() => ({ state: 'active' })),
  )
  expect((await lab.task('status')).stdout).toMatch(
    new RegExp(`^fault: ${fault[0]} .*, heals itself in \\d+ s$`, 'm'),
  )
  const healed = await chaos('heal')
  expect(healed, healed.stderr).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/: healed, 20 of 20 packets came back$/m),
  })
  expect(await listed()).toEqual([])
  expect(await rules()).toBe('0\n1')
})

test('a second fault on the same link is refused, and so is one on mgmt', async () => {
  await chaos('delay', '--link', 'uplink', '--host', 'sorrow', '--ms', '50', '--for', '10m')
  const second = await chaos('loss', '--link', 'uplink', '--host', 'sorrow', '--percent', '20')
  expect(second).toMatchObject({ code: 3, stderr: expect.stringContaining('is at work') })
  const mgmt = await chaos('loss', '--link', 'mgmt', '--host', 'sorrow', '--percent', '20')
  expect(mgmt).toMatchObject({ code: 2 })
  expect(await listed()).toHaveLength(1)
})

test('a fault whose record is missing or damaged is still found and healed', async () => {
  rmSync(record())
  expect(await listed()).toMatchObject([{ state: 'unrecorded', link: 'uplink' }])
  writeFileSync(record(), '{')
  expect(await chaos('list')).toMatchObject({ code: 3, stderr: expect.stringContaining('heal') })
  expect(await chaos('heal')).toMatchObject({ code: 0 })
  expect(await listed()).toEqual([])
  expect(await rules()).toBe('0\n1')
  expect(existsSync(record())).toBe(false)
})

test.each([['loss', '--percent', '30'], ['cut']])(
  'a task killed during the injection leaves nothing behind once the lease has ended: %s',
  async (...fault) => {
    const where = ['--link', 'uplink', '--host', 'sorrow', '--for', '20s']
    const child = lab.start('chaos-network', ...fault, ...where)
    let said = ''
    child.stderr!.on('data', (text: Buffer) => (said += text.toString()))
    const ended = new Promise((resolve) => child.on('close', resolve))
    // as soon as the fault is recorded, whether or not the guest has it yet
    await until(60, async () => existsSync(record()) || child.exitCode !== null)
    expect(existsSync(record()), said).toBe(true)
    child.kill('SIGKILL')
    await ended
    await new Promise((resolve) => setTimeout(resolve, 25_000))
    expect(await listed()).toEqual([])
    expect(await rules()).toBe('0\n1')
  },
)

test('a tc rule without a lease or record is found and healed', async () => {
  await guest('tc qdisc add dev uplink root netem loss 5%')
  expect(await listed()).toMatchObject([{ state: 'unrecorded' }])
  expect(await chaos('heal', '--host', 'sorrow')).toMatchObject({ code: 0 })
  expect(await rules()).toBe('0\n1')
})

test('a reboot ends faults in the guest’s kernel, but a pulled cable stays out', async () => {
  await chaos('delay', '--link', 'lan', '--host', 'sorrow', '--ms', '50', '--for', '10m')
  await chaos('cut', '--link', 'uplink', '--host', 'sorrow', '--for', '10m')
  const before = await guest('cat /proc/sys/kernel/random/boot_id')
  await guest('systemctl reboot')
  await until(300, async () => {
    const now = await guest('cat /proc/sys/kernel/random/boot_id')
    return now !== '' && now !== before
  })
  expect(await listed()).toMatchObject([{ state: 'active', link: 'uplink' }])
  expect(await rules()).toBe('0\n0')
  expect(await chaos('heal')).toMatchObject({ code: 0 })
  expect(await rules()).toBe('0\n1')
})

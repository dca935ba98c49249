import { spawn, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { expect, onTestFinished, test } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { TookTooLong } from '../../../lib/retry.ts'
import type { Scene } from '../../../lib/scenario/family.ts'
import { lateBoot, type Machine } from '../../../lib/scenario/machine.ts'
import { labSubject } from '../../../lib/scenario/subject-lab.ts'
import { comes, rebooted } from '../../../lib/scenario/trial.ts'
import { deployedBy, upgrades } from '../../../lib/scenario/upgrade.ts'
import { KernelFailed } from '../../../lib/vm/kernel.ts'

/** Records the checks of a case, as `held: name: found`. */
function recording(): { scene: Scene; rows: string[] } {
  const rows: string[] = []
  const check: Scene['check'] = (name, expected, found) => {
    const held = expected instanceof RegExp ? expected.test(String(found)) : expected === found
    rows.push(`${held ? 'ok' : 'RED'}: ${name}: ${found}`)
    return held
  }
  const must: Scene['must'] = (name, expected, found) => {
    if (!check(name, expected, found)) throw new Failure(`${name} is red`)
  }
  return { scene: { check, must, event: () => {} } as unknown as Scene, rows }
}
const late = new TookTooLong('Waiting for `sorrow` took longer than its limit of 60 s')
const dead = new Failure('The guest agent of `sorrow` does not answer')
const silent = async (): Promise<never> => {
  throw dead
}
const uuid = randomUUID()
const machine = (more: object): Machine =>
  ({
    host: 'sorrow',
    vm: { host: 'sorrow', uuid },
    patience: 1,
    subject: labSubject,
    ...more,
  }) as Machine

test('a boot that does not come is a failed check if the guest runs another system', async () => {
  const { scene, rows } = recording()
  const vm = machine({ agent: async () => ({ stdout: '/nix/store/trial\n' }) })
  const wait = rebooted(scene, vm, 'golden boots again', () => Promise.reject(late))
  await expect(wait).rejects.toThrow('golden boots again is red')
  expect(rows).toEqual(['RED: golden boots again: /nix/store/trial was booted instead'])
})

test('a boot that comes after its limit is reported as late, not as a failed check', async () => {
  const { scene, rows } = recording()
  // runs the condition here, as a guest would at this moment
  const sh = async (script: string) => ({
    stdout: spawnSync('sh', ['-c', script], { encoding: 'utf8' }).stdout,
  })
  const thrown = await lateBoot(late, sh, 'true')
  const vm = machine({ agent: sh })
  const wait = rebooted(scene, vm, 'golden boots again', () => Promise.reject(thrown))
  await expect(wait).rejects.toThrow(
    /took longer than its limit of 60 s, but the boot came a moment later/,
  )
  expect(rows).toEqual([])
  expect(await lateBoot(late, sh, 'false')).toBe(late)
  expect(await lateBoot(late, silent, 'true')).toBe(late)
})

test.each([
  ['does not answer', late, dead],
  ['is refused', new Failure('another host key'), new Failure('another host key')],
])('a guest that %s fails no check', async (_, thrown, seen) => {
  const { scene, rows } = recording()
  const vm = machine({
    agent: silent,
    until: () => Promise.reject(thrown),
    upgrade: () => Promise.reject(thrown),
  })
  const waits = [
    comes(scene, vm, 'golden is validated', 90, 'true'),
    upgrades(scene, vm, { outcome: 'upgraded' }),
  ]
  for (const wait of waits) await expect(wait).rejects.toThrow(seen.message)
  expect(rows).toEqual([])
})

test('a running QEMU that does not boot is a failed check, one that ended or whose kernel oopsed is not', async () => {
  const { scene, rows } = recording()
  const wait = (agent: Machine['agent'] = silent): Promise<number> =>
    rebooted(scene, machine({ agent }), 'golden boots again', () => Promise.reject(late))
  await expect(wait()).rejects.toThrow(late.message)
  const args = ['-machine', 'none', '-nodefaults', '-display', 'none', '-uuid', uuid]
  const qemu = spawn('qemu-system-x86_64', args, { stdio: 'ignore' })
  onTestFinished(() => void qemu.kill('SIGKILL'))
  await once(qemu, 'spawn')
  const oops = new KernelFailed('the kernel of `sorrow` oopsed: int3', 'oopsed', '')
  await expect(wait(() => Promise.reject(oops))).rejects.toThrow(oops.message)
  expect(rows).toEqual([])
  await expect(wait()).rejects.toThrow('golden boots again is red')
  expect(rows).toEqual(['RED: golden boots again: it neither came up nor came back'])
})

test('an upgrade that does not end is a failed check that names its phase', async () => {
  const { scene, rows } = recording()
  const agent = async () => ({ stdout: 'activating\n"phase":"fetch"\n' })
  const vm = machine({ agent, upgrade: () => Promise.reject(late) })
  await expect(upgrades(scene, vm, { outcome: 'offline' })).rejects.toThrow('is red')
  expect(rows).toEqual([
    expect.stringMatching(/^RED: sorrow's upgrade: ends in its time: activating[^]*fetch/),
  ])
})

test('an upgrade that names nothing as deployed is a failed check, not a bug of the lab', () => {
  const { scene, rows } = recording()
  expect(() => deployedBy(scene, undefined)).toThrow(Failure)
  expect(rows).toEqual(['RED: the upgrade names what it deployed: undefined'])
})

import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import type { Scene } from '../../../lib/scenario/family.ts'
import { left, limits } from '../../../lib/scenario/limits.ts'
import { labSubject } from '../../../lib/scenario/subject-lab.ts'

const system = '/nix/store/aaa-system'

/** The red checks of the case in which a check hangs, if the agent has started that check so many times. */
async function red(starts: number): Promise<string[]> {
  const rows: string[] = []
  const check: Scene['check'] = (name, expected, found) => {
    const held = expected instanceof RegExp ? expected.test(String(found)) : expected === found
    if (!held) rows.push(`${name}: ${found}`)
    return held
  }
  const reason = '`test ! -e /run/lab-hang || { x; }` failed'
  const ends = [
    { outcome: 'upgraded', to: { toplevel: system }, notRestored: [] },
    { outcome: 'validation-failed', reason, to: null, notRestored: [] },
  ]
  const vm = {
    ...{ host: 'sorrow', patience: 1, subject: labSubject, running: async () => system },
    upgrade: async () => {
      const status = ends.shift()!
      return { status, result: status.reason ? 'exit-code' : 'success', log: '', seconds: 70 }
    },
    root: async () => ({ stdout: 'started\n'.repeat(starts) }),
    ask: async () => 'ended',
  }
  const scene = { vm, check, must: check, ends: () => {}, event: () => {} }
  const world = { config: { commit: async () => 'c' } }
  const one = limits.find(({ name }) => name === 'check-hangs')!
  await one.run({ ...scene, world } as unknown as Scene)
  return rows
}

test('a check that hangs must be started once, one that fails is started each second', async () => {
  expect(await red(1)).toEqual([])
  // a check that fails is tried again each second
  expect(await red(20)).toEqual(['the hung check was started once: 20 times'])
  expect(await red(0)).toEqual(['the hung check was started once: 0 times'])
})

test.each([
  ['exit 0', 'running'],
  ['exit 1', 'ended'],
  ['exit 2', 'not known: 2'],
])('whether the hung check still runs is not known if pgrep fails: %s', (ends, said) => {
  const { stdout } = spawnSync('bash', ['-c', `pgrep() { (${ends}); }; ${left}`], {
    encoding: 'utf8',
  })
  expect(stdout.trim()).toBe(said)
})

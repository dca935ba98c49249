/** The checks of an upgrade that reports nothing about itself. */
import { expect, test } from 'vitest'
import type { Scene } from '../../../lib/scenario/family.ts'
import type { Machine } from '../../../lib/scenario/machine.ts'
import { upgrades, type Wanted } from '../../../lib/scenario/upgrade.ts'

const [old, main] = ['/nix/store/aaa-system', '/nix/store/bbb-system']

/** The checks that did not hold, and the verdict. */
async function asked(
  wanted: Wanted,
  { result = 'success', running = main }: { result?: string; running?: string } = {},
): Promise<{ red: string[]; count: number; outcome: string | null; toplevel?: string }> {
  const found: { name: string; held: boolean }[] = []
  const check: Scene['check'] = (name, expected, seen) => {
    const held = expected instanceof RegExp ? expected.test(String(seen)) : expected === seen
    found.push({ name: name.replace("sorrow's upgrade: ", ''), held })
    return held
  }
  const scene = { check, must: check, event: () => {}, wanted: async () => main }
  const vm = {
    host: 'sorrow',
    subject: { kind: 'unit', title: 'pull.service', unit: 'pull', promises: new Set() },
    upgrade: async () => ({ status: undefined, result, log: '', seconds: 1 }),
    root: async () => ({ stdout: `${running}\n${running}\nsystem-3-link\n`, stderr: '', code: 0 }),
  }
  const { outcome, to } = await upgrades(
    scene as unknown as Scene,
    vm as unknown as Machine,
    wanted,
  )
  const red = found.filter(({ held }) => !held).map(({ name }) => name)
  return { red, count: found.length, outcome, toplevel: to?.toplevel }
}

test('an upgrade expected to deploy must run the branch’s system, and its unit must succeed', async () => {
  const wanted = { outcome: 'upgraded', reason: /never asked/, phase: 'done' }
  expect(await asked(wanted)).toEqual({
    ...{ red: [], count: 3, outcome: 'upgraded', toplevel: main },
  })
  expect((await asked(wanted, { running: old })).red).toEqual(['runs what the branch has'])
  expect((await asked(wanted, { result: 'exit-code' })).red).toEqual(['the unit ends'])
})

test('an upgrade expected to fail must not end with success', async () => {
  const wanted = { outcome: 'build-failed' }
  expect((await asked(wanted, { running: old })).red).toEqual(['the unit ends'])
  const failed = await asked(wanted, { running: old, result: 'exit-code' })
  expect(failed).toMatchObject({ red: [], outcome: 'failed' })
})

test('an upgrade that may be offline must only end, and its outcome is read from the running system', async () => {
  const wanted = { outcome: /^(upgraded|offline)$/ }
  expect(await asked(wanted)).toMatchObject({ red: [], count: 1, outcome: 'upgraded' })
  expect(await asked(wanted, { running: old, result: 'exit-code' })).toMatchObject({
    ...{ red: [], count: 1, outcome: 'offline' },
  })
})

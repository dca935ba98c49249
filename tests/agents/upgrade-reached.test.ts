/** What an upgrade validates besides its configured checks, and what it leaves to the golden generation. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { missingForRoot } from './root.ts'
import { copyWorld, killedIn, makeUpgradeWorld, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
let first: UpgradeWorld
let world: UpgradeWorld
beforeAll(async () => {
  if (!missing) first = await makeUpgradeWorld()
}, 600_000)
afterAll(() => first?.remove())
beforeEach(async (context) => {
  if (missing) return context.skip(missing)
  world = await copyWorld(first)
})
afterEach(() => world?.remove())

test('A host that cannot be reached after the switch is rolled back', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  // the switch is what makes it unreachable
  const reached = { REACH_COMMAND: 'grep -q one /run/current-system/text', REACH_TIMEOUT: '1' }
  const done = await world.upgrade(reached)
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed', notRestored: [] })
  expect(done.reason).toMatch(/^this host cannot be reached: `grep .*` exited with 1/)
  expect(await world.state()).toBe(before)
  expect(await world.upgrade(reached)).toMatchObject({ outcome: 'skipped-known-bad' })
})

test('Checks and hooks that cannot be parsed do not pass', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  const hooks = await world.upgrade({ UPGRADE_HOOKS: '["true",' })
  expect(hooks).toMatchObject({ code: 1, outcome: 'failed', reason: 'The hooks cannot be read' })
  const done = await world.upgrade({ UPGRADE_CHECKS: '["true",' })
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed' })
  expect(done.reason).toContain('the checks cannot be read')
  expect(await world.state()).toBe(before)
})

test('A boot whose verdict was left to the upgrade becomes golden once the upgrade has ended', async () => {
  // a stand-in for golden-boot-validation records its arguments, and whether a transaction was still open
  await world.sh(`mkdir -p /root/bin; printf '%s\\n' '#!/bin/sh' 'echo "$* $(ls /var/lib/nix-local-upgrade | grep -c transaction)" >>/root/asked' 'rm /run/golden-generation.left' >/root/bin/golden-boot-validation
    chmod +x /root/bin/golden-boot-validation`)
  const env = { PATH: '/root/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin' }
  await world.push('two', { 'text.nix': '"two"' })
  const killed = killedIn('validate')
  expect((await world.upgrade({ ...env, UPGRADE_PHASE_HOOK: killed })).code).toBe(137)
  // the power fails, and the new generation boots
  await world.sh(`sed -i 's/"bootId":"[^"]*"/"bootId":"another"/' /var/lib/nix-local-upgrade/transaction.json
    : >/run/golden-generation.left; : >/root/asked`)
  const done = await world.upgrade(env)
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(world.read('root/asked')).toBe('--upgraded 0\n')
  await world.upgrade(env)
  expect(world.read('root/asked')).toBe('--upgraded 0\n')
})

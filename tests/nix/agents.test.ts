import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'

const agents = join(project, 'nix/agents')

function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'lab-agents-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  return directory
}

/** Runs an agent as its wrapper does: bash, strict, with its settings in the environment. */
const agent = (name: string, env: Record<string, string>) =>
  run('bash', ['-euo', 'pipefail', join(agents, `${name}.sh`)], { env, allow: [1] })

test('Agents pass shellcheck', async () => {
  const files = readdirSync(agents).map((file) => join(agents, file))
  expect(files.length).toBeGreaterThan(3)
  await run('shellcheck', files)
})

test('The upgrade reports that it was skipped, and why, and changes nothing else', async () => {
  const state = scratch()
  const env = { STATE_DIRECTORY: state, UPGRADE_MODE: 'local', UPGRADE_HOST: 'sorrow' }
  const status = (): unknown => JSON.parse(readFileSync(join(state, 'status.json'), 'utf8'))

  const missing = join(state, 'no "such" repository')
  const { code } = await agent('nix-local-upgrade', { ...env, UPGRADE_REPOSITORY: missing })
  expect(code).toBe(0)
  expect(status()).toMatchObject({
    outcome: 'skipped',
    reason: `No repository at ${missing}`,
    host: 'sorrow',
    mode: 'local',
  })

  await agent('nix-local-upgrade', { ...env, UPGRADE_REPOSITORY: state })
  expect(status()).toMatchObject({ outcome: 'skipped', reason: 'This agent only reports so far' })
  expect(readdirSync(state)).toEqual(['status.json'])
})

test('A boot is bad when a unit is not active, and n/a is neither good nor bad', async () => {
  const env = {
    GOLDEN_TIMEOUT: '1',
    GOLDEN_SHOW: 'true',
    GOLDEN_UNAVAILABLE: 'tailscaled.service Debian carries no tailscale',
  }
  const lacking = await agent('golden-boot-validation', {
    ...env,
    GOLDEN_SERVICES: 'tailscaled.service',
  })
  expect(lacking.stdout).toContain('n/a     tailscaled.service: Debian carries no tailscale')
  expect(lacking.code).toBe(0)

  const bad = await agent('golden-boot-validation', {
    ...env,
    GOLDEN_SERVICES: 'tailscaled.service no-such-unit.service',
  })
  expect(bad.stdout).toMatch(/FAILED {2}no-such-unit\.service is /)
  expect(bad.code).toBe(1)
})

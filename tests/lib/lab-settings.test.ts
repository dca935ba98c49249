import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { chooseGuest, embeddedGuest } from '../../lib/nix/guest.ts'
import { labSettings } from '../../lib/lab-settings.ts'

let flake: string
const variables = ['LAB_BRANCH', 'LAB_SSH_PORT', 'LAB_GUEST', 'LAB_FLAKE']
beforeEach(() => {
  flake = mkdtempSync(join(tmpdir(), 'lab-settings-'))
})
afterEach(() => {
  rmSync(flake, { recursive: true })
  for (const variable of variables) delete process.env[variable]
})
const toml = (text: string): void => writeFileSync(join(flake, 'lab.toml'), text)

test('A flake that says nothing has every default', async () => {
  expect(await labSettings(flake)).toEqual({
    user: null,
    branch: 'main',
    units: {
      upgrade: 'nix-local-upgrade',
      sync: 'chezmoi-pre-update',
      golden: 'golden-boot-validation',
    },
    paths: { flake: '~/nix-config', dotfiles: '~/.local/share/chezmoi' },
    ports: { ssh: 2222 },
  })
})

test('lab.toml names what is different, and a variable beats it', async () => {
  toml('user = "mia"\nbranch = "simple"\n[units]\nupgrade = "auto-upgrade.service"\n')
  expect(await labSettings(flake)).toMatchObject({
    user: 'mia',
    branch: 'simple',
    units: { upgrade: 'auto-upgrade', sync: 'chezmoi-pre-update' },
  })
  process.env['LAB_BRANCH'] = 'dev'
  process.env['LAB_SSH_PORT'] = '22222'
  expect(await labSettings(flake)).toMatchObject({ branch: 'dev', ports: { ssh: 22222 } })
})

test.each([
  ['user = mia', /Cannot read `.*lab\.toml`, line 1/],
  ['units.upgrad = "x"', /there is no setting `units\.upgrad`/],
  ['user = "Mia Muster"', /Cannot read `user` of `.*` as a user name/],
  ['[paths]\nflake = "nix-config"', /`paths\.flake` of `.*` as an absolute path/],
  ['[ports]\nssh = 22', /`ports\.ssh` of `.*` as a port/],
])('%s is refused in one line', async (text, said) => {
  toml(text)
  const failed = await labSettings(flake).catch((error: Error) => error)
  expect((failed as Error).message).toMatch(said)
  expect((failed as Error).message).not.toContain('\n')
})

test('The guest of a flake that has never heard of the lab is NixOS, and says why', () => {
  writeFileSync(join(flake, 'flake.nix'), '{ outputs = _: { nixosConfigurations = { }; }; }')
  process.env['LAB_FLAKE'] = flake
  expect(chooseGuest()).toEqual({
    kind: 'nixos',
    attribute: 'nixosConfigurations',
    reason: 'the flake has no labConfigurations',
  })
  expect(embeddedGuest()).toEqual({
    none: 'n/a on the `nixos` guest, taken as the flake has no labConfigurations',
  })
  process.env['LAB_GUEST'] = 'debian'
  expect(chooseGuest()).toMatchObject({ kind: 'debian', reason: 'LAB_GUEST says so' })
  process.env['LAB_GUEST'] = 'arch'
  expect(() => chooseGuest()).toThrow('Cannot read LAB_GUEST=`arch`')
})

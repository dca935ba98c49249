import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Failure } from '../../lib/failure.ts'
import { chooseGuest } from '../../lib/nix/guest.ts'
import { seeding } from '../../lib/scenario/baseline.ts'
import { disagreement, type Facts } from '../../lib/nix/host.ts'
import { labSettings, mayFail } from '../../lib/lab-settings.ts'
import { clonesOf } from '../../lib/scenario/oracle-facts.ts'
import { readPromises } from '../../lib/scenario/own-promises.ts'
import { runFamilies } from '../../lib/scenario/run.ts'
import type { Family } from '../../lib/scenario/family.ts'

let flake: string
const variables = ['LAB_BRANCH', 'LAB_MAY_FAIL', 'LAB_SSH_PORT', 'LAB_GUEST', 'LAB_FLAKE']
beforeEach(() => {
  flake = mkdtempSync(join(tmpdir(), 'lab-settings-'))
})
afterEach(() => {
  rmSync(flake, { recursive: true })
  for (const variable of variables) delete process.env[variable]
})
const toml = (text: string): void => writeFileSync(join(flake, 'lab.toml'), text)

test('A flake without lab.toml has the default settings', async () => {
  expect(await labSettings(flake)).toEqual({
    user: null,
    branch: 'main',
    mayFail: [],
    units: {
      upgrade: 'nix-local-upgrade',
      sync: 'chezmoi-pre-update',
      golden: 'golden-boot-validation',
    },
    paths: { flake: '~/nix-config', dotfiles: '~/.local/share/chezmoi' },
    ports: { ssh: 2222 },
    upgrade: { kind: null, unit: null, remote: null, promises: null },
  })
})

test('A lab.toml that is a dangling symlink is not treated as missing', async () => {
  symlinkSync('elsewhere.toml', join(flake, 'lab.toml'))
  for (const read of [labSettings, readPromises])
    await expect(read(flake)).rejects.toMatchObject({
      message: `Cannot read \`${join(flake, 'lab.toml')}\`: it is a symlink that leads to no file`,
      exit: 2,
    })
})

test('[upgrade] names what upgrades the host, and the tasks use its unit', async () => {
  toml('[upgrade]\nkind = "nixos-upgrade"\n')
  expect(await labSettings(flake)).toMatchObject({
    upgrade: { kind: 'nixos-upgrade', unit: null },
    units: { upgrade: 'nixos-upgrade' },
  })
  toml(
    '[upgrade]\nkind = "unit"\nunit = "pull.service"\nremote = "https://example.org/me/config.git"\npromises = ["deploy", "rollback"]\n',
  )
  process.env['LAB_BRANCH'] = 'other'
  expect(await labSettings(flake)).toMatchObject({
    upgrade: {
      ...{ kind: 'unit', unit: 'pull', remote: 'https://example.org/me/config.git' },
      promises: ['deploy', 'rollback'],
    },
    units: { upgrade: 'pull' },
  })
})

test('lab.toml overrides defaults, and a variable overrides lab.toml', async () => {
  toml('user = "mia.muster"\nbranch = "simple"\n[units]\nupgrade = "auto-upgrade.service"\n')
  expect(await labSettings(flake)).toMatchObject({
    user: 'mia.muster',
    branch: 'simple',
    units: { upgrade: 'auto-upgrade', sync: 'chezmoi-pre-update' },
  })
  for (const branch of ['release/26.05', 'HEAD-1', 'a.locks', 'x']) {
    process.env['LAB_BRANCH'] = branch
    expect(await labSettings(flake)).toMatchObject({ branch })
  }
  process.env['LAB_BRANCH'] = 'dev'
  process.env['LAB_SSH_PORT'] = '22222'
  expect(await labSettings(flake)).toMatchObject({ branch: 'dev', ports: { ssh: 22222 } })
})

test('Units that may fail are named with or without their type, and with wildcards', async () => {
  toml('may-fail = ["acme-*", "fwupd-refresh", "nas.mount"]\n')
  const { mayFail: names } = await labSettings(flake)
  const units = [
    ...['acme-example.org.service', 'acme-.service', 'fwupd-refresh.service', 'nas.mount'],
    ...['acme-example.org.timer', 'xacme-a.service', 'fwupd.service', 'fwupd-refresh.timer'],
    ...['nasXmount', 'nas.service'],
  ]
  expect(units.filter((unit) => mayFail(unit, names))).toEqual(units.slice(0, 4))
  process.env['LAB_MAY_FAIL'] = 'a,b*'
  expect((await labSettings(flake)).mayFail).toEqual(['a', 'b*'])
  delete process.env['LAB_MAY_FAIL']
  // an empty list, as when the last unit is removed
  toml('may-fail = []\n')
  expect((await labSettings(flake)).mayFail).toEqual([])
})

test('A lab.toml that is not UTF-8 is refused, and a misspelt promise table gets a hint about promises', async () => {
  writeFileSync(join(flake, 'lab.toml'), Buffer.from('# für mich\nuser = "mia"\n', 'latin1'))
  await expect(labSettings(flake)).rejects.toThrow(/lab\.toml`: it is not UTF-8/)
  toml('[[promises]]\nname = "web"\n')
  const failed = await labSettings(flake).catch((error: Failure) => error)
  expect((failed as Failure).detail.hint).toContain('[[promise]]')
})

test.each([
  ['user = mia', /Cannot read `.*lab\.toml`, line 1/],
  ['units.upgrad = "x"', /there is no setting `units\.upgrad`/],
  ['user = "Mia Muster"', /Cannot read `user` of `.*` \(line \d\) as a user name/],
  ['[paths]\nflake = "nix-config"', /`paths\.flake` of `.*` \(line \d\) as an absolute path/],
  ['[paths]\nflake = "/etc/../nixos"', /`paths\.flake` of `.*` \(line \d\) as an absolute path/],
  [
    'user = "mia"\n[upgrade]\nkind = "cron"',
    /`upgrade\.kind` of `.*lab\.toml` \(line 3\) as lab, nixos/,
  ],
  [
    '[upgrade]\npromises = ["deploy", "luck"]',
    /`upgrade\.promises` of `.*` \(line 2\) as a list of dep/,
  ],
  ['[upgrade]\npromises = "deploy"', /`upgrade\.promises` of `.*` \(line 2\) as a list of deploy/],
  [
    '[upgrade]\nkind = ["unit"]',
    /`upgrade\.kind` of `.*` \(line 2\) as lab, nixos-upgrade, comin or unit/,
  ],
  ['[upgrade]\nunti = "x"', /Cannot read `.*` \(line 2\): there is no setting `upgrade\.unti`/],
  ['may-fail = ["sshd", "*"]', /`may-fail` of `.*` \(line 1\) as a list of units/],
  ['may-fail = "acme"', /`may-fail` of `.*` \(line 1\) as a list of units: "acme"/],
  ...['a..b', 'a/', 'a//b', 'a/.b', 'a.', 'a.lock', 'a.lock/b', '-a', 'HEAD'].map(
    (branch): [string, RegExp] => [
      `branch = "${branch}"`,
      /`branch` of `.*` \(line 1\) as a branch/,
    ],
  ),
  ['[ports]\nssh = 22', /`ports\.ssh` of `.*` \(line \d\) as a port/],
])('%s is refused in one line', async (text, said) => {
  toml(text)
  const failed = await labSettings(flake).catch((error: Error) => error)
  expect((failed as Error).message).toMatch(said)
  expect((failed as Error).message).not.toContain('\n')
})

const clones = { branch: 'main', flake: '/home/rain/nix-config', dotfilesBranch: 'main' }
const host = (more: Partial<typeof clones> = {}): Parameters<typeof disagreement>[0] => ({
  name: 'sorrow',
  facts: { home: '/home/rain', clones: { ...clones, ...more } } as unknown as Facts,
})

test.each([
  [{}, undefined],
  [{ branch: null, flake: null, dotfilesBranch: null }, undefined],
  [
    { branch: 'live' },
    '`sorrow` upgrades from the branch `live`, and `branch` of lab.toml is `main`',
  ],
  [{ dotfilesBranch: 'dots' }, '`sorrow` syncs dotfiles by the branch `dots`, and `branch` of'],
  [
    { flake: '/etc/nixos' },
    '`sorrow` has its flake in `/etc/nixos`, and `paths.flake` of lab.toml',
  ],
])('A host whose settings are %j is compared with lab.toml', async (says, said) => {
  const found = disagreement(host(says as Partial<typeof clones>), await labSettings(flake))
  if (said === undefined) expect(found).toBeUndefined()
  else expect(found).toContain(said)
})

test('A guest is seeded at the paths that lab.toml names', async () => {
  expect(seeding(await labSettings(flake))).toContain(
    'rm -rf nix-config .local/share/chezmoi\nmkdir -p .local/share\n',
  )
  expect(seeding(await labSettings(flake))).not.toContain('chezmoi.toml')
  vi.stubEnv('LAB_FLAKE_PATH', '/etc/nixos')
  vi.stubEnv('LAB_DOTFILES_PATH', '~/src/dots')
  const other = await labSettings(flake)
  vi.unstubAllEnvs()
  expect(clonesOf(other.paths)).toEqual(['/etc/nixos', 'src/dots'])
  const script = seeding(other)
  expect(script).toContain('rm -rf src/dots\nmkdir -p src\n')
  expect(script).toContain('git://git.lab/config.git /etc/nixos\n')
  expect(script).toContain('git://git.lab/dotfiles.git src/dots\n')
  // run by a shell
  const at = mkdtempSync(join(tmpdir(), 'home-'))
  mkdirSync(join(at, 'src/dots'), { recursive: true })
  const told = script.slice(script.indexOf('mkdir -p .config'), script.indexOf('chezmoi apply'))
  execFileSync('sh', ['-euc', told], { cwd: at })
  expect(readFileSync(join(at, '.config/chezmoi/chezmoi.toml'), 'utf8')).toBe(
    `sourceDir = "${join(at, 'src/dots')}"\n`,
  )
  rmSync(at, { recursive: true })
})

test('Scenarios are skipped if lab.toml names agents other than the lab’s', async () => {
  const home = mkdtempSync(join(tmpdir(), 'home-'))
  const said = vi.spyOn(console, 'log').mockImplementation(() => undefined)
  vi.stubEnv('LAB_HOME', home)
  vi.stubEnv('LAB_UPGRADE_UNIT', 'my-upgrade')
  try {
    const family: Family = {
      name: 'family',
      describe: '',
      cases: [{ name: 'one', title: 'one', promise: 'deploy', run: async () => undefined }],
    }
    expect(await runFamilies([family], { name: 'family', json: true })).toBe(3)
    expect(said.mock.calls.join('')).toContain('`my-upgrade` for `nix-local-upgrade`')
  } finally {
    vi.unstubAllEnvs()
    said.mockRestore()
    rmSync(home, { recursive: true })
  }
})

test('The guest of a flake without labConfigurations is NixOS, and the reason is given', () => {
  writeFileSync(join(flake, 'flake.nix'), '{ outputs = _: { nixosConfigurations = { }; }; }')
  process.env['LAB_FLAKE'] = flake
  expect(chooseGuest()).toEqual({
    kind: 'nixos',
    attribute: 'nixosConfigurations',
    reason: 'the flake has no labConfigurations',
  })
  process.env['LAB_GUEST'] = 'debian'
  expect(chooseGuest()).toMatchObject({ kind: 'debian', reason: 'LAB_GUEST says so' })
  process.env['LAB_GUEST'] = 'arch'
  expect(() => chooseGuest()).toThrow('Cannot read LAB_GUEST=`arch`')
})

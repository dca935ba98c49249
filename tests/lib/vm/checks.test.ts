import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import {
  checksOf,
  judge,
  judgeClosure,
  judgeLogin,
  probesOf,
  tailscaleLogin,
} from '../../../lib/vm/checks.ts'
import type { Host } from '../../../lib/nix/host.ts'

const host: Host = {
  name: 'sorrow',
  guest: 'debian',
  derivation: '/nix/store/x.drv',
  toplevel: '/nix/store/abc-nixos-system-sorrow',
  facts: {
    ...{ hostName: 'sorrow', primaryUser: 'rain', desktop: [], cli: ['atuin'] },
    ...{
      networking: ['openssh', 'tailscale'],
      autoUpgradeEnable: true,
      goldenEnable: true,
      rollsBack: true,
      buildsFirst: true,
      syncs: true,
    },
    systemAutoUpgrade: false,
    comin: false,
    ...{ schedule: 'hourly', declared: ['atuin', 'openssh', 'tailscale', 'ntpd'] },
    mayFail: [],
    validateServices: ['sshd.service'],
    units: { openssh: 'sshd.service', tailscale: 'tailscaled.service' },
    unavailable: { tailscale: 'Debian carries no tailscale', sops: 'Debian carries no sops' },
    syncthingAddress: '127.0.0.1:8384',
    agents: {
      upgrade: { unit: 'nix-local-upgrade', present: true, timer: true },
      sync: { unit: 'chezmoi-pre-update', present: false, timer: false },
      golden: { unit: 'golden-boot-validation', present: true, timer: false },
    },
    home: '/home/rain',
    clones: { branch: 'main', flake: '/home/rain/nix-config', dotfilesBranch: null },
    platform: 'x86_64-linux',
    secrets: [{ path: '/run/secrets/greeting', owner: 'rain', mode: '0400' }],
  },
}
const checks = checksOf(host)

/** The verdict on one check, given the guest's answer. */
const verdict = (name: string, text: string, code = 0) => {
  const index = checks.findIndex((check) => check.name === name)
  return judge(checks, { [`p${index}`]: { code, text } })[index]!
}

test('a check that the guest cannot pass is n/a with its reason, and is not probed', () => {
  const index = checks.findIndex(({ name }) => name === 'tailscale')
  expect(verdict('sops', 'anything')).toMatchObject({
    state: 'n/a',
    found: 'Debian carries no sops',
  })
  expect(verdict('tailscale', 'anything')).toEqual({
    check: 'tailscale',
    state: 'n/a',
    found: 'Debian carries no tailscale',
  })
  expect(probesOf(checks)).not.toHaveProperty(`p${index}`)
})

test('a declared service without a probe is n/a, never a pass', () => {
  expect(verdict('ntpd', '').state).toBe('n/a')
})

test('a guest that does not answer fails every check that was probed', () => {
  const states = judge(checks, {}).map(({ state }) => state)
  expect(new Set(states)).toEqual(new Set(['fail', 'n/a']))
})

test('systemd leaves underscores out of the host name, which is no difference', () => {
  const [name] = checksOf({ ...host, facts: { ...host.facts, hostName: 'T480_x' } })
  expect(name).toMatchObject({ name: 'host name', expected: 'T480x' })
  expect(name!.holds({ code: 0, text: 'T480x' })).toBe(true)
  expect(name!.holds({ code: 0, text: 'T480_y' })).toBe(false)
})

test.each([
  ['host name', 'sorrow', 'mitosis'],
  ['running generation', host.toplevel, '/nix/store/old-nixos-system-sorrow'],
  ['system profile', host.toplevel, ''],
  [
    'openssh',
    'loaded active running\n10.0.2.2 40000 10.0.2.15 22',
    'loaded failed failed\n10.0.2.2 40000 10.0.2.15 22',
  ],
  ['openssh', 'loaded active running\n10.0.2.2 40000 10.0.2.15 22', 'loaded active running'],
  ['atuin', 'atuin 18.0.0', 'bash: atuin: command not found'],
  ['auto-upgrade timer', 'loaded active running\nhourly', 'loaded active elapsed\nhourly'],
  ['auto-upgrade timer', 'loaded active waiting\nhourly', 'loaded active elapsed\nhourly'],
  ['auto-upgrade timer', 'loaded active waiting\nhourly', 'loaded active waiting\ndaily'],
  ['golden validation', 'loaded active exited', 'loaded failed failed'],
  ['golden validation', 'loaded active exited', 'not-found inactive dead'],
  ['clone to upgrade from', 'there', ''],
  ['headless userland', '', '/usr/lib/x86_64-linux-gnu/libgtk-3.so.0'],
  ['failed units', '', 'syncthing.service'],
  ['nix as rain', `sha256:${'0'.repeat(52)}`, 'error: cannot connect to socket'],
  ['jj as rain', '/home/rain/.config/jj/config.toml', 'jj: command not found'],
  ['chezmoi as rain', 'rain', 'root'],
])('%s passes on %j and fails on %j', (name, good, bad) => {
  expect(verdict(name, good).state).toBe('pass')
  expect(verdict(name, bad).state).toBe('fail')
})

test('a failed unit that lab.toml lists in may-fail is n/a, others fail', () => {
  const list = checksOf({ ...host, facts: { ...host.facts, mayFail: ['acme-*'] } })
  const index = list.findIndex(({ name }) => name === 'failed units')
  const found = (text: string, code = 0) => {
    const answer = { code, text }
    const [all, some] = judge(list, { [`p${index}`]: answer, [`p${index + 1}`]: answer }).slice(
      index,
    )
    return [all!.state, all!.found, some!.check, some!.state, some!.found]
  }
  const may = 'units that may fail'
  expect(found('')).toEqual(['pass', 'none', may, 'pass', 'none'])
  expect(found('acme-a.service')).toEqual([
    'pass',
    'none',
    may,
    'n/a',
    'acme-a.service, by lab.toml',
  ])
  const both = 'acme-a.service\nsyncthing.service (restarted 4 times)'
  expect(found(both).slice(0, 2)).toEqual(['fail', 'syncthing.service (restarted 4 times)'])
  expect(found('', 1)[0]).toBe('fail')
})

test('on NixOS the headless check reads the closure of the running system', () => {
  const list = checksOf({ ...host, guest: 'nixos' })
  const index = list.findIndex(({ name }) => name === 'headless userland')
  expect(list[index]!.probe).toContain('/run/current-system')
  const found = (text: string, code = 0) => judge(list, { [`p${index}`]: { code, text } })[index]!
  const path = (name: string): string => `/nix/store/${'a'.repeat(32)}-${name}`
  const plain = [path('bash-5.3'), path('systemd-258')]
  expect(found(plain.join('\n')).state).toBe('pass')
  expect(found([...plain, path('gtk+3-3.24.49')].join('\n'))).toMatchObject({
    state: 'fail',
    found: 'gtk+3-3.24.49',
  })
  expect(found('').state).toBe('fail')
  expect(found('error: cannot connect to the daemon', 1).state).toBe('fail')
})

test('an answer with a non-zero exit code fails, whatever it printed', () => {
  expect(verdict('nix as rain', `sha256:${'0'.repeat(52)}`, 124).state).toBe('fail')
})

test('a login passes only by key, and only with the lab’s key', () => {
  expect(judgeLogin('rain', ['publickey'], true).state).toBe('pass')
  expect(judgeLogin('rain', ['publickey', 'password'], true).state).toBe('fail')
  expect(judgeLogin('root', ['publickey'], false).state).toBe('fail')
  expect(judgeLogin('root', [], true).state).toBe('fail')
})

test('graphical packages in a closure are named', () => {
  const path = (name: string): string => `/nix/store/${'a'.repeat(32)}-${name}`
  expect(judgeClosure([path('glibc-2.40'), path('nixos-system-sorrow')]).state).toBe('pass')
  expect(
    judgeClosure([path('glibc-2.40'), path('gtk+3-3.24'), path('webkitgtk-2.44')]),
  ).toMatchObject({
    state: 'fail',
    found: 'gtk+3-3.24, webkitgtk-2.44',
  })
})

test('a secret passes only if it exists and only its owner can read it', () => {
  expect(verdict('secret greeting', 'rain 400').state).toBe('pass')
  expect(verdict('secret greeting', 'root 444')).toMatchObject({
    state: 'fail',
    expected: 'rain 400',
  })
  expect(verdict('secret greeting', '', 1).state).toBe('fail')
})

test('a flake with its own agents is checked by the units that lab.toml names', () => {
  const facts = {
    ...host.facts,
    ...{ autoUpgradeEnable: false, goldenEnable: false },
    agents: {
      upgrade: { unit: 'nixos-upgrade', present: true, timer: true },
      sync: { unit: 'dotfiles', present: true, timer: false },
      golden: { unit: 'boot-check', present: false, timer: false },
    },
  }
  const found = checksOf({ ...host, facts })
  const of = (name: string): (typeof found)[number] => found.find((each) => each.name === name)!
  expect(found.map(({ name }) => name)).not.toContain('boot-check')
  expect(of('nixos-upgrade').probe).toBe('unit nixos-upgrade.timer')
  expect(of('nixos-upgrade').holds({ code: 0, text: 'loaded active waiting' })).toBe(true)
  expect(of('nixos-upgrade').holds({ code: 1, text: 'not-found inactive dead' })).toBe(false)
  expect(of('dotfiles').holds({ code: 0, text: 'loaded\ninactive' })).toBe(true)
  for (const text of ['loaded\nfailed', 'not-found\ninactive']) {
    expect(of('dotfiles').holds({ code: 0, text })).toBe(false)
  }
})

test('agents with the same unit names as the lab’s are still checked as the flake’s own', () => {
  const agents = {
    ...host.facts.agents,
    sync: { unit: 'chezmoi-pre-update', present: true, timer: false },
  }
  const asked = (facts: Partial<Host['facts']>): string[] =>
    checksOf({ ...host, facts: { ...host.facts, agents, ...facts } }).map(({ name }) => name)
  const clones = { ...host.facts.clones, dotfilesBranch: 'main' }
  const own = ['chezmoi-pre-update', 'golden-boot-validation']
  expect(asked({ goldenEnable: false })).toEqual(expect.arrayContaining(own))
  for (const name of own) expect(asked({ clones })).not.toContain(name)
})

test('a VM without a clone has n/a for it, and its upgrade unit may fail', () => {
  expect(verdict('clone to upgrade from', 'none')).toEqual({
    check: 'clone to upgrade from',
    state: 'n/a',
    found: expect.stringMatching(/^no `\/home\/rain\/nix-config` yet: /),
  })
  const asked = (clone: string): string => {
    const clones = { ...host.facts.clones, flake: clone }
    const found = checksOf({ ...host, facts: { ...host.facts, clones } })
    const { probe } = found.find(({ name }) => name === 'failed units')!
    const failed = `failed() { for unit in nix-local-upgrade.service other.service; do
      [ "$unit" = "\${1-}" ] || echo "$unit"; done; }`
    return execFileSync('bash', ['-c', `${failed}; ${probe}`], { encoding: 'utf8' }).trim()
  }
  expect(asked('/nonexistent/clone')).toBe('other.service')
  expect(asked('/usr')).toBe('nix-local-upgrade.service\nother.service')
})

test('the tailscale login is checked only where it is possible, and its state is shown', () => {
  const nixos = { ...host, guest: 'nixos' as const, facts: { ...host.facts, unavailable: {} } }
  expect(tailscaleLogin(host, true, true)).toEqual([])
  const [row] = judge(tailscaleLogin(nixos, true, false), {})
  expect(row).toMatchObject({ state: 'n/a', found: 'LAB_TAILSCALE_AUTHKEY is not set' })
  expect(judge(tailscaleLogin(nixos, false, true), {})[0]).toMatchObject({
    state: 'n/a',
    found: expect.stringContaining('its uplink is closed: '),
  })
  const login = (text: string) =>
    judge(tailscaleLogin(nixos, true, true), { p0: { code: 0, text } })[0]
  expect(login('{\n  "Version": "1.9",\n  "BackendState": "Running",\n}')).toMatchObject({
    ...{ check: 'tailscale login', state: 'pass', found: 'Running' },
  })
  expect(login('{ "BackendState": "NeedsLogin" }')).toMatchObject({
    ...{ state: 'fail', found: 'NeedsLogin', expected: 'Running' },
  })
  expect(login('failed to connect to local tailscaled')).toMatchObject({ state: 'fail' })
})

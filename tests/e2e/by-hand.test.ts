/** The manual loop: change a line, publish it, upgrade, see it; then break it and see the old state come back. */
import { execFileSync } from 'node:child_process'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Upgraded } from '../../tasks/upgrade-test-vm.ts'
import { changeHost, copyFlake } from '../flake-copy.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
let flake: string

beforeAll(async () => {
  lab = makeLab()
  flake = copyFlake(lab.dir)
  lab.env['LAB_FLAKE'] = flake
  const { code, stderr } = await lab.just('deploy-test-vm', 'sorrow')
  if (code !== 0) throw new Error(stderr)
})
afterAll(() => lab.remove())

const git = (...args: string[]): string =>
  execFileSync('git', ['-C', flake, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args], {
    encoding: 'utf8',
  }).trim()
const ssh = async (command: string) => {
  const { stdout } = await lab.just('ssh-test-vm', 'sorrow', command)
  return stdout.trim()
}
const upgraded = async (...flags: string[]): Promise<Upgraded & { code: number | null }> => {
  const { code, stdout, stderr } = await lab.task('upgrade-test-vm', '--json', ...flags)
  const [one] = JSON.parse(stdout || '[]') as Upgraded[]
  if (!one) throw new Error(stderr)
  return { ...one, code }
}

test('a newly deployed VM has its clone and dotfiles, and its upgrade is up to date', async () => {
  expect(await ssh('cd nix-config && git rev-parse HEAD && ls -d .jj')).toBe(
    `${git('rev-parse', 'HEAD')}\n.jj`,
  )
  expect(await upgraded()).toMatchObject({ code: 0, outcome: 'up-to-date', golden: 'golden' })
  expect(await ssh('cat .config/lab/greeting')).toBe('Hello from sorrow')
  const { code, stdout } = await lab.task('verify', 'sorrow')
  expect(code).toBe(0)
  expect(stdout).toMatch(/^clone to upgrade from +pass/m)
})

test('a published commit is deployed, and becomes golden once booted', async () => {
  changeHost(flake, 'sorrow', '{ environment.etc."lab-change".text = "one"; }')
  git('commit', '-qam', 'one')
  expect(await lab.just('publish')).toMatchObject({ code: 0 })
  const found = await upgraded('--reboot')
  expect(found).toMatchObject({ code: 0, outcome: 'upgraded', generation: '2', golden: 'golden' })
  expect(await ssh('cat /etc/lab-change')).toBe('one')
})

test('--dirty publishes uncommitted changes, and a bad one is rolled back', async () => {
  const bad = `{ systemd.services.lab-bad = { wantedBy = [ "multi-user.target" ];
    serviceConfig = { Type = "oneshot"; ExecStart = "/bin/false"; }; }; }`
  changeHost(flake, 'sorrow', bad)
  expect((await lab.just('publish')).stdout).toContain('There already')
  expect(await lab.just('publish', '--dirty')).toMatchObject({ code: 0 })
  const found = await upgraded()
  expect(found).toMatchObject({ code: 1, outcome: 'validation-failed', generation: '2' })
  expect(found.reason).toContain('lab-bad.service')
  expect(await ssh('cat /etc/lab-change')).toBe('one')
})

test('a generation that does not boot falls back to golden, and is reported as trial-failed', async () => {
  const broken = `{ boot.kernelParams = [ "init=/nonexistent" ]; }`
  changeHost(flake, 'sorrow', broken)
  await lab.just('publish', '--dirty')
  expect(await upgraded('--reboot')).toMatchObject({
    code: 1,
    outcome: 'trial-failed',
    generation: '2',
  })
})

test('nixos-rebuild still works when used by hand', async () => {
  changeHost(flake, 'sorrow', '{ environment.etc."lab-change".text = "two"; }')
  await lab.just('publish', '--dirty')
  const typed = 'cd nix-config && git pull -q origin main && sudo nixos-rebuild'
  expect(await ssh(`${typed} test --flake . && cat /etc/lab-change`)).toContain('two')
  expect(await ssh('readlink /nix/var/nix/profiles/system')).toBe('system-2-link')
  expect(await ssh('cd nix-config && sudo nixos-rebuild switch --flake .#sorrow; echo $?')).toMatch(
    /\b0$/,
  )
  expect(await ssh('readlink -f /run/current-system')).toBe(
    await ssh('readlink -f /nix/var/nix/profiles/system'),
  )
  expect(await ssh('nixos-rebuild switch 2>&1; echo $?')).toContain('Only root may switch')
})

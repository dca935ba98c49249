import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { identify } from '../../lib/process.ts'
import type { Verified } from '../../tasks/verify.ts'
import { changeHost, copyFlake } from '../flake-copy.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
let flake: string

beforeAll(() => {
  lab = makeLab()
  flake = copyFlake(lab.dir)
  lab.env['LAB_FLAKE'] = flake
})
afterAll(() => lab.remove())

const ssh = async (host: string, ...command: string[]): Promise<string> => {
  const { stdout, stderr, code } = await lab.just('ssh-test-vm', host, ...command)
  if (code !== 0) throw new Error(`${command.join(' ')}: exited with ${code}: ${stderr}`)
  return stdout.trim()
}

interface Standing {
  host: string
  state: string
  pid?: number
  uuid: string
  port: number
}

/** The parts of the status that do not change by themselves, unlike the size of a disk. */
const status = async (): Promise<Standing[]> => {
  const all = JSON.parse((await lab.task('status', '--json')).stdout) as Standing[]
  return all.map(({ host, state, pid, uuid, port }) => ({ host, state, pid, uuid, port }))
}

/** Polls for a condition of a guest, for at most `limit` seconds. */
async function until<T>(limit: number, probe: () => Promise<T | undefined>): Promise<T> {
  for (const end = performance.now() + limit * 1000; ;) {
    const found = await probe().catch(() => undefined)
    if (found !== undefined) return found
    if (performance.now() > end) throw new Error(`Nothing came within ${limit} s`)
    await new Promise((resolve) => setTimeout(resolve, 1000))
  }
}

test('one command makes, deploys and verifies both VMs', async () => {
  const { code, stdout, stderr } = await lab.just('lab')
  expect({ code, stdout, stderr }).toMatchObject({ code: 0 })
  expect(stderr + stdout).toMatch(/(KVM|a probe guest ran on it)/)
  expect(stdout).toMatch(/^check +sorrow +torment/m)
  expect(stdout).toMatch(/^tailscale +n\/a +n\/a +Debian carries no tailscale/m)
  expect(stdout).toMatch(/^ssh -F .*ssh_config sorrow\nssh -F .*ssh_config torment$/m)
})

test('a second run reports that everything is already there, and starts nothing', async () => {
  const before = await status()
  const { code, stdout } = await lab.just('lab')
  expect(code).toBe(0)
  expect(stdout).toContain('Everything was there already')
  expect(await status()).toEqual(before)
  expect(before.map(({ state }) => state)).toEqual(['running', 'running'])
})

test('verify --json prints JSON, in which n/a is not a failure', async () => {
  const { code, stdout } = await lab.task('verify', '--json')
  const found = JSON.parse(stdout) as Verified[]
  expect(found.map(({ host }) => host)).toEqual(['sorrow', 'torment'])
  for (const { results } of found) {
    expect(results.filter(({ state }) => state === 'fail')).toEqual([])
    const lacking = results.filter(({ state }) => state === 'n/a').map(({ check }) => check)
    expect(lacking).toEqual(['tailscale', 'comma', 'sops'])
    expect(results.filter(({ state }) => state === 'pass').length).toBeGreaterThan(12)
  }
  expect(code).toBe(0)
})

test('libraries are always at the same address, so that QEMU can reuse its translated code', async () => {
  const libc = (): Promise<string> => ssh('sorrow', 'grep -F libc.so /proc/self/maps')
  const first = await libc()
  expect(first).toMatch(/^[0-9a-f]+-[0-9a-f]+ r-xp .*libc\.so/m)
  expect(await libc()).toBe(first)
})

test('the VMs reach each other over lan, and over uplink only the lab’s services on the host', async () => {
  expect(await ssh('sorrow', 'sudo ping -c 1 -W 5 10.0.4.2')).toContain('1 received')
  expect(await ssh('torment', 'sudo ping -c 1 -W 5 10.0.4.1')).toContain('1 received')
  const asked =
    'git ls-remote --exit-code git://10.0.3.100/config.git main >/dev/null && echo reached'
  expect(await ssh('sorrow', asked)).toBe('reached')
  // it reaches nothing else on the host, and nothing beyond it
  for (const address of ['10.0.3.2/22', '10.0.2.2/22']) {
    const [ip, port] = address.split('/')
    expect(
      await ssh(
        'sorrow',
        `timeout 5 bash -c "exec 3<>/dev/tcp/${ip}/${port}" 2>/dev/null && echo open || echo shut`,
      ),
    ).toBe('shut')
  }
})

test('a rebuild applies a change, and removes what the next one no longer contains', async () => {
  const before = await ssh('sorrow', 'readlink /nix/var/nix/profiles/system')
  changeHost(
    flake,
    'sorrow',
    `{
    environment.etc."lab-change".text = "first";
    systemd.services.lab-change = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "/bin/true"; };
    };
  }`,
  )
  const first = await lab.just('rebuild-test-vm', 'sorrow')
  expect(first).toMatchObject({ code: 0, stdout: expect.stringContaining('0 failed') })
  expect(await ssh('sorrow', 'cat /etc/lab-change; echo; systemctl is-active lab-change')).toBe(
    'first\nactive',
  )
  expect(await ssh('sorrow', 'readlink /nix/var/nix/profiles/system')).not.toBe(before)

  changeHost(flake, 'sorrow', '{ }')
  expect(await lab.just('rebuild-test-vm', 'sorrow')).toMatchObject({ code: 0 })
  expect(
    await ssh(
      'sorrow',
      'test -e /etc/lab-change || echo gone; systemctl is-active lab-change || true',
    ),
  ).toBe('gone\ninactive')
})

test('a change that breaks a unit makes the rebuild fail and names it', async () => {
  changeHost(
    flake,
    'sorrow',
    `{
    systemd.services.lab-broken = {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = { Type = "oneshot"; ExecStart = "/bin/false"; };
    };
  }`,
  )
  const { code, stderr } = await lab.just('rebuild-test-vm', 'sorrow')
  expect(code).toBe(1)
  expect(stderr).toContain('lab-broken.service')
  changeHost(flake, 'sorrow', '{ }')
  expect(await lab.just('rebuild-test-vm', 'sorrow')).toMatchObject({ code: 0 })
})

test('verify fails if a service stops, and names it', async () => {
  await ssh('torment', 'sudo systemctl stop syncthing')
  const { code, stdout } = await lab.just('verify-test-vms')
  expect(code).toBe(1)
  expect(stdout).toMatch(/^syncthing +pass +FAIL/m)
  expect(stdout).toContain(
    'torment: syncthing: found loaded inactive dead, expected syncthing.service active',
  )
  await ssh('torment', 'sudo systemctl start syncthing')
})

test('verify fails if an active service does not answer', async () => {
  await ssh('torment', 'sudo systemctl kill --signal=STOP syncthing')
  const { code, stdout } = await lab.task('verify', 'torment')
  await ssh('torment', 'sudo systemctl kill --signal=CONT syncthing')
  expect(code).toBe(1)
  expect(stdout).toMatch(/^syncthing +FAIL/m)
})

test('a guest can reboot while no task runs, and comes back with its deployed generation', async () => {
  const before = await ssh('sorrow', 'cat /proc/sys/kernel/random/boot_id')
  const { pid } = (await status()).find(({ host }) => host === 'sorrow')!
  await ssh('sorrow', 'sudo systemctl reboot').catch(() => undefined)
  const after = await until(300, async () => {
    const id = await ssh('sorrow', 'cat /proc/sys/kernel/random/boot_id')
    return id === before ? undefined : id
  })
  expect(after).toMatch(/^[0-9a-f-]{36}$/)
  expect((await status()).find(({ host }) => host === 'sorrow')).toMatchObject({ state: 'running' })
  expect((await status()).find(({ host }) => host === 'sorrow')!.pid).not.toBe(pid)
  expect(await lab.task('verify', 'sorrow')).toMatchObject({ code: 0 })
})

test('ssh runs a command, gives its exit code, and reaches root', async () => {
  expect(await lab.just('ssh-test-vm', 'sorrow', 'exit 7')).toMatchObject({ code: 7 })
  expect(await ssh('torment', 'hostname; whoami')).toBe('torment\nrain')
  const root = await lab.task('ssh', 'torment', '--root', '--', 'id', '-un')
  expect(root.stdout.trim()).toBe('root')
})

test('console --log prints the guest’s output', async () => {
  const { code, stdout } = await lab.task('console', 'sorrow', '--log', '--lines', '400')
  expect(code).toBe(0)
  expect(stdout).toContain('sorrow')
})

test('after QEMU was killed status reports it, and a deploy brings the VM back with its data', async () => {
  await ssh('torment', 'echo kept > kept; sync')
  const { pid } = (await status()).find(({ host }) => host === 'torment')!
  process.kill(pid!, 'SIGKILL')
  await until(30, async () =>
    (await status()).find(({ host, state }) => host === 'torment' && state === 'stopped'),
  )
  expect(await lab.task('verify', 'torment')).toMatchObject({ code: 1 })
  expect(await lab.just('deploy-test-vm', 'torment')).toMatchObject({ code: 0 })
  expect(await ssh('torment', 'cat kept')).toBe('kept')
})

test('a missing keeper is noticed and replaced', async () => {
  const { uuid } = (await status()).find(({ host }) => host === 'torment')!
  // with the UUID, so as not to kill the keeper of another lab's VM of that name
  execFileSync('pkill', ['-KILL', '-f', `keeper\\.ts torment ${uuid}`])
  await until(10, async () =>
    (await status()).find(({ host, state }) => host === 'torment' && state === 'unattended'),
  )
  expect(await lab.just('deploy-test-vm', 'torment')).toMatchObject({ code: 0 })
  await until(10, async () =>
    (await status()).find(({ host, state }) => host === 'torment' && state === 'running'),
  )
})

test('down ends both VMs and their keepers, and destroy deletes everything', async () => {
  const running = await status()
  expect(await lab.just('down')).toMatchObject({ code: 0 })
  // a zombie that is not reaped yet counts as gone, too
  for (const { pid, uuid } of running) expect(identify(pid!, uuid)).toBeUndefined()
  expect((await status()).map(({ state }) => state)).toEqual(['stopped', 'stopped'])
  const ask = await lab.just('destroy-test-vm', 'torment')
  expect(ask).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') })
  expect(await lab.just('destroy-test-vm', 'torment', '--yes')).toMatchObject({ code: 0 })
  expect((await status()).map(({ host }) => host)).toEqual(['sorrow'])
  expect(existsSync(join(lab.env['LAB_HOME']!, 'vms', 'torment'))).toBe(false)
  expect(readFileSync(join(lab.env['LAB_HOME']!, 'ssh_config'), 'utf8')).not.toContain('torment')
})

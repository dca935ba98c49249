import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { readSteps, spoilable, watch, watchers } from './durable.ts'
import { missingForRoot } from './root.ts'
import { agent, makeUpgradeWorld, settings, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
let world: UpgradeWorld
beforeAll(async () => {
  if (!missing) world = await makeUpgradeWorld()
})
beforeEach((context) => {
  if (missing) context.skip(missing)
  world.write('root/agent', agent)
})
afterAll(() => world?.remove())

/** Runs the agent after these commands, in the same environment. */
const upgradeAfter = (prelude: string, env: Record<string, string> = {}) => {
  world.write('root/agent', `${prelude}\n${agent}`)
  return world.upgrade(env)
}
/** Settings with a phase hook that runs commands in the background when a phase begins. */
const during = (phase: string, commands: string): Record<string, string> => ({
  UPGRADE_PHASE_HOOK: `f() { [ "$1" != ${phase} ] || { ${commands}; } >/dev/null 2>&1 & }; f`,
})
let commits = 0
const change = (text = ''): Promise<string> =>
  world.push('a change', { 'text.nix': `"${++commits} of the tests\n${text}"` })
const cache = 'mount -t tmpfs -o size=64k,uid=1000,gid=100 tmpfs /home/rain/.cache'
const slowly = (name: string): string =>
  `\${derivation { name = "${name}"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin"; args = [ "-c" "sleep 20; echo slow >$out" ]; }}`
const nix = "pgrep --full '^nix .*build --show-trace'"

test.each<[string, string, Record<string, string>, string, RegExp, string]>([
  [
    '/boot that is read-only',
    'mount -t tmpfs -o ro tmpfs /boot',
    {},
    'failed',
    /^\/boot is mounted read-only/,
    '',
  ],
  [
    '/boot that is not mounted',
    '',
    { UPGRADE_BOOT_MOUNTED: 'true' },
    'failed',
    /^\/boot is not mounted, so no new generation can be made to boot: `mount \/boot`/,
    '',
  ],
  [
    'a cache of nix with no room',
    `mkdir -p /home/rain/.cache; ${cache}; dd if=/dev/zero of=/home/rain/.cache/fill 2>/dev/null || true`,
    {},
    'no-space',
    /^The build ran out of space: /,
    '',
  ],
  [
    'a cache of nix that is read-only',
    'mount -t tmpfs -o ro tmpfs /home/rain/.cache',
    {},
    'failed',
    /read-only/i,
    '',
  ],
  [
    'an evaluation that is killed',
    '',
    during('build', `until pid=$(${nix}); do sleep 0.05; done; kill -9 $pid`),
    'failed',
    /^The build was ended by signal 9$/,
    '',
  ],
  [
    'a builder that is killed',
    '',
    during(
      'build',
      `until pid=$(pgrep --full '^sleep 20'); do sleep 0.05; done; kill -9 $(ps -o ppid= -p $pid) $pid`,
    ),
    'failed',
    /^A builder was killed: .*-killed\.drv/,
    slowly('killed'),
  ],
  [
    'a daemon that goes away',
    '',
    during('build', `until pgrep --full '^sleep 20'; do sleep 0.05; done; pkill -9 nix-daemon`),
    'failed',
    /^Cannot ask the Nix daemon: /,
    slowly('left'),
  ],
  [
    'settings of nix that cannot be read',
    'echo "what is this" >/root/nix.conf; mount --bind /root/nix.conf /etc/nix/nix.conf',
    {},
    'failed',
    /^Nix failed for a reason outside the commit: .*nix\.conf/,
    '',
  ],
  [
    'no memory for an evaluation',
    'ulimit -v 1500000',
    {},
    'failed',
    /^The evaluation ran out of memory$/,
    '${toString (builtins.length (builtins.genList (x: x) 100000000))}',
  ],
])(
  'For %s the commit is not blamed, and it is deployed once that is fixed',
  async (_, prelude, env, outcome, reason, text) => {
    await world.sh('mkdir -p .cache', { user: 'rain' })
    const before = await world.state()
    const commit = await change(text)
    const done = await upgradeAfter(prelude, env)
    expect(done).toMatchObject({ code: 1, outcome, notRestored: [] })
    expect(done.reason).toMatch(reason)
    expect(await world.state()).toBe(before)
    expect(await world.sh('ls /var/lib/nix-local-upgrade')).not.toContain('known-bad')
    world.write('root/agent', agent)
    expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded', to: { commit } })
  },
)

test.each<[string, string, string, RegExp, boolean]>([
  [
    'by what it says',
    'echo "stopping the following units: a.service"; echo "Traceback"; echo "OSError: [Errno 5] Bad thing: /boot/x" >&2; echo "Failed to install bootloader" >&2; exit 1',
    'switch-failed',
    /^switch-to-configuration exited with 1: OSError: \[Errno 5\] Bad thing: \/boot\/x; Failed to install bootloader$/,
    true,
  ],
  [
    'by a disk that gives up',
    'echo "cp: error writing /boot/x: Input/output error" >&2; exit 1',
    'failed',
    /exited with 1: cp: error writing .*: Input\/output error$/,
    false,
  ],
  [
    'by a /boot that is not mounted',
    'echo "efiSysMountPoint = /boot is not a mounted partition. Is the path configured correctly?" >&2; echo "Failed to install bootloader" >&2; exit 1',
    'failed',
    /is not a mounted partition/,
    false,
  ],
  [
    'by a firmware that takes no variables',
    'echo "golden-arm-trial: Cannot put /nix/store/x on trial: the one-shot entry of the boot loader cannot be set" >&2; exit 1',
    'failed',
    /loader cannot be set/,
    false,
  ],
  [
    'by a kernel that firmware cannot start',
    'echo "golden-arm-trial: Cannot put /nix/store/x on trial: /boot/y is no program that firmware can start" >&2; exit 1',
    'switch-failed',
    /firmware can start$/,
    true,
  ],
  [
    'by another that has its lock',
    'echo "Could not acquire lock" >&2; exit 11',
    'locked',
    /^Another switch was at work$/,
    false,
  ],
  [
    'by never ending',
    'echo "starting the following units: a.service"; exec sleep 100',
    'switch-failed',
    /^switch-to-configuration did not end within 5 s/,
    true,
  ],
])(
  'A switch that fails %s is reported with that reason',
  async (_, script, outcome, reason, remembered) => {
    const before = await world.state()
    const commit = await change(`switch does: ${script.replaceAll('"', '\\"')}`)
    // on a busy machine even a switch that fails at once takes seconds, and so does the rollback
    const limit = script.includes('exec sleep') ? '5' : '60'
    const done = await world.upgrade({ UPGRADE_SWITCH_LIMIT: limit })
    expect(done).toMatchObject({ code: outcome === 'locked' ? 0 : 1, outcome, notRestored: [] })
    expect(done.reason).toMatch(reason)
    expect(await world.state()).toBe(before)
    const known = await world.sh('cat /var/lib/nix-local-upgrade/known-bad 2>/dev/null || true')
    expect(known.includes(commit)).toBe(remembered)
    await world.sh('rm -f /var/lib/nix-local-upgrade/known-bad')
  },
)

test('Setting the clock while checks run does not shorten their time', async () => {
  const commit = await change()
  // as on a machine that was off for long, when the network sets its clock
  const done = await upgradeAfter('sleep() { SECONDS=$((SECONDS + 36000)); }', {
    UPGRADE_PATIENCE: '60',
    UPGRADE_CHECKS: JSON.stringify(['echo >>/root/asked; [ "$(wc -l </root/asked)" -ge 4 ]']),
  })
  expect(done).toMatchObject({ outcome: 'upgraded', to: { commit } })
})

test('A lock that is held for too long is a failure, whichever process holds it', async () => {
  await change()
  const hold = 'flock /run/nixos/switch-to-configuration.lock sleep 30 & sleep 2'
  expect(await upgradeAfter(hold)).toMatchObject({ code: 0, outcome: 'locked' })
  const hung = await upgradeAfter(hold, { UPGRADE_LOCK_LIMIT: '1' })
  expect(hung).toMatchObject({ code: 1, outcome: 'failed' })
  expect(hung.reason).toMatch(
    /^Another switch is at work: pid \d+, flock .*; it has been running for/,
  )

  const first = `bash -c 'exec 9>>/run/nix-local-upgrade.lock; flock 9; echo "nix-local-upgrade (pid $$, since then)" >/run/nix-local-upgrade.lock; sleep 30' & sleep 2`
  const run = async (limit: string) => {
    const script = `${first}; bash -euo pipefail /root/agent`
    const env = { ...settings, UPGRADE_LOCK_LIMIT: limit }
    return world.run(['bash', '-c', script], { env, allow: [1] })
  }
  world.write('root/agent', agent)
  expect(await run('60')).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/locked: .* is at work/),
  })
  expect(await run('1')).toMatchObject({ code: 1, stderr: expect.stringMatching(/counts as hung/) })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('If systemd runs but does not answer, no upgrade counts as good', async () => {
  const before = await world.state()
  await change()
  await world.sh('mkdir -p /run/systemd/system')
  // if it does not answer at the start, the commit is not blamed
  const early = await world.upgrade()
  await world.sh('rmdir /run/systemd/system')
  expect(early).toMatchObject({ code: 1, outcome: 'failed', phase: 'switch' })
  expect(early.reason).toMatch(/^systemd does not report the state of the services/)
  expect(await world.state()).toBe(before)

  await change('switch does: mkdir -p /run/systemd/system')
  const done = await world.upgrade()
  await world.sh('rmdir /run/systemd/system')
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed' })
  expect(done.reason).toMatch(/^systemd does not report the state of the services/)
  expect(await world.state()).toBe(before)
})

test('Damaged state files, as after a disk error or from a backup, do not lock the host out', async () => {
  await change()
  await world.sh(`cd /var/lib/nix-local-upgrade; truncate -s 20 deployed
    head -c 99 /dev/urandom >known-bad; rm status.json; mkdir status.json`)
  const wrapper = ['bash', '-euo', 'pipefail', '/root/agent']
  const ran = await world.run(wrapper, { env: settings, daemon: true, allow: [1] })
  // a run that cannot write its status does not succeed
  expect(ran.code).toBe(1)
  expect(ran.stdout).toMatch(/upgraded: Runs/)
  await world.sh('rmdir /var/lib/nix-local-upgrade/status.json')
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'up-to-date' })
})

test('A power cut at any moment damages nothing that the next run relies on', async () => {
  await world.sh(watch)
  await change()
  const path = `${watchers}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin`
  expect(await world.upgrade({ PATH: path })).toMatchObject({ outcome: 'upgraded' })
  // the status is only for people: no run relies on it
  const steps = (await world.sh(readSteps)).split('\n').filter((step) => !step.includes('/status.'))
  const state = '/var/lib/nix-local-upgrade'
  expect(spoilable(steps, /^sync --file-system/)).toEqual([])
  const written = (name: string): string => `mv -T ${state}/${name}.new ${state}/${name}`
  const large = steps.filter(
    (step) =>
      step.startsWith('sync --file-system') ||
      [written('transaction.json'), written('deployed')].includes(step),
  )
  // the repository is synced before and after the rebase, each time before a transaction record that relies on it;
  // the build before it can boot, and again after the transaction record that would roll it back
  expect(large).toEqual([
    'sync --file-system /home/rain/nix-config',
    written('transaction.json'),
    'sync --file-system /home/rain/nix-config',
    written('transaction.json'),
    written('transaction.json'),
    'sync --file-system /nix/store',
    written('deployed'),
  ])
})

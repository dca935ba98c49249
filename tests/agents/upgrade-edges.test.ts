import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { missingForRoot } from './root.ts'
import { agent, copyWorld, makeUpgradeWorld, settings, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
let first: UpgradeWorld
let world: UpgradeWorld
beforeAll(async () => {
  if (!missing) first = await makeUpgradeWorld()
})
beforeEach(async (context) => {
  if (missing) return context.skip(missing)
  world = await copyWorld(first)
})
afterEach(() => world?.remove())
afterAll(() => first?.remove())

/** Bash that replaces a program of the world by this text. */
const inPlaceOf = (program: string, text: string): string =>
  `cp /usr/bin/${program} /root/own-${program}; printf '#!/bin/bash\\n%s\\n' '${text}' >/root/${program}
   chmod +x /root/${program}; mount --bind /root/${program} /usr/bin/${program}`

test('A reboot that is due waits while a rebuild is running', async () => {
  await world.sh(
    'mkdir -p /old /new; touch /old/kernel /new/kernel; ln -sfn /old /run/booted-system',
  )
  const model = inPlaceOf('systemctl', 'echo "$*" >>/root/asked')
  const allowed = { UPGRADE_ALLOW_REBOOT: 'true' }
  world.write(
    'root/agent',
    `${model}\nmkdir -p /run/nixos; exec 7>>/run/nixos/switch-to-configuration.lock; flock 7\n${agent}`,
  )
  const { said } = await world.upgrade(allowed, '--reboot')
  expect(said).toMatch(/a reboot is due, and waits for a rebuild that is running \(pid \d+/)
  expect(await world.sh('cat asked 2>/dev/null || true')).toBe('')
  world.write('root/agent', `${model}\n${agent}`)
  await world.upgrade(allowed, '--reboot')
  expect(await world.sh('cat asked')).toContain('reboot')
})

test('New kernel modules need a reboot, as does a new kernel', async () => {
  // the profile of this world has no kernel modules
  await world.sh('rm -rf /old asked; mkdir /old; ln -sfn /old /run/booted-system')
  world.write('root/agent', `${inPlaceOf('systemctl', 'echo "$*" >>/root/asked')}\n${agent}`)
  const asked = async (): Promise<string> => {
    await world.upgrade({ UPGRADE_ALLOW_REBOOT: 'true' }, '--reboot')
    return await world.sh('cat asked 2>/dev/null || true')
  }
  expect(await asked()).toBe('')
  await world.sh('touch /old/kernel-modules')
  expect(await asked()).toContain('reboot')
  await world.sh('rm asked')
})

test('A reboot that is due is not made while an interrupted upgrade is not recovered', async () => {
  const state = '/var/lib/nix-local-upgrade/transaction.json'
  await world.sh(`rm -rf /old; mkdir /old; touch /old/kernel; ln -sfn /old /run/booted-system
    echo '{"stage":"system"}' >${state}`)
  world.write('root/agent', `${inPlaceOf('systemctl', 'echo "$*" >>/root/asked')}\n${agent}`)
  const { said } = await world.upgrade({ UPGRADE_ALLOW_REBOOT: 'true' }, '--reboot')
  expect(said).toContain('it will see to the reboot')
  expect(await world.sh(`cat asked 2>/dev/null || true; rm ${state}`)).toBe('')
})

test('The reboot window may span midnight', async () => {
  await world.sh(
    'mkdir -p /old /new; touch /old/kernel /new/kernel; ln -sfn /old /run/booted-system',
  )
  world.write('root/agent', `${inPlaceOf('systemctl', 'echo "$*" >>/root/asked')}\n${agent}`)
  const at = (minutes: number): string =>
    new Date(Date.now() + minutes * 60_000).toISOString().slice(11, 16)
  for (const [window, asked] of [
    [`${at(-60)}-${at(-120)}`, '--no-block reboot'],
    [`${at(120)}-${at(60)}`, '--no-block reboot'],
    [`${at(60)}-${at(-60)}`, ''],
  ]) {
    const env = { UPGRADE_ALLOW_REBOOT: 'true', UPGRADE_REBOOT_WINDOW: window! }
    await world.upgrade(env, '--reboot')
    const done = await world.sh('cat asked 2>/dev/null || true; rm -f asked')
    expect([window, done]).toEqual([window, asked])
  }
})

test('A mirror whose creation was interrupted is created again', async () => {
  const remote = {
    UPGRADE_MODE: 'remote',
    UPGRADE_REPOSITORY: '/nowhere',
    UPGRADE_FLAKE_URL: 'git+file:///home/rain/config.git',
  }
  await world.sh(
    `git config --global safe.directory '*'; mkdir -p /var/lib/nix-local-upgrade/remote.git/refs`,
  )
  await world.push('two', { 'text.nix': '"two"' })
  expect(await world.upgrade(remote)).toMatchObject({ outcome: 'upgraded' })
  // a complete one is kept
  await world.sh('touch /var/lib/nix-local-upgrade/remote.git/mark')
  expect(await world.upgrade(remote)).toMatchObject({ outcome: 'up-to-date' })
  await world.sh('test -e /var/lib/nix-local-upgrade/remote.git/mark')
})

test.each([
  ['github:o/r', 'github:o/r/stable'],
  ['github:o/r?dir=hosts', 'github:o/r/stable?dir=hosts'],
  ['gitlab:o/r?host=git.example.org', 'gitlab:o/r/stable?host=git.example.org'],
  ['github:o/r/other?dir=hosts', 'github:o/r/other?dir=hosts'],
  ['https://example.org/a.tar.gz?x=/y', 'https://example.org/a.tar.gz?x=/y'],
])(
  'A flake without history, `%s`, is evaluated at its branch, and refreshed',
  async (url, asked) => {
    const model = inPlaceOf(
      'nix',
      '[[ " $* " != *" flake metadata "* ]] || echo "$*" >>/root/asked; exit 1',
    )
    world.write('root/agent', `${model}\n${agent}`)
    await world.upgrade({
      UPGRADE_MODE: 'remote',
      UPGRADE_REPOSITORY: '/nowhere',
      UPGRADE_BRANCH: 'stable',
      UPGRADE_FLAKE_URL: url,
    })
    const said = await world.sh('cat asked')
    expect(said.trim().split(' ').at(-1)).toBe(asked)
    // otherwise Nix would use its cache for an hour
    expect(said).toContain(' --refresh ')
  },
)

test('A host that was deployed from a tarball accepts a commit, which cannot descend from the tarball’s date', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  await world.upgrade()
  const file = '/var/lib/nix-local-upgrade/deployed'
  await world.sh(`read -r _ _ top when <${file}; echo "sha256-x 1700000000 $top $when" >${file}`)
  await world.push('three', { 'text.nix': '"three"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('A check that ignores SIGTERM is killed', async () => {
  const quick = agent.replace('timeout --kill-after=10 60 bash', 'timeout --kill-after=1 2 bash')
  expect(quick).not.toBe(agent)
  world.write('root/agent', quick)
  await world.push('two', { 'text.nix': '"two"' })
  const check = "trap '' TERM; while :; do sleep 1; done"
  expect(await world.upgrade({ UPGRADE_CHECKS: JSON.stringify([check]) })).toMatchObject({
    outcome: 'validation-failed',
    reason: `\`${check}\` failed`,
  })
})

test('The user’s git, jj and nix get the proxies and certificates of the machine', async () => {
  const model = inPlaceOf('git', 'env >>/tmp/git-env; exec /tmp/own-git "$@"')
  world.write('root/agent', `${model}\ncp /root/own-git /tmp/own-git\n${agent}`)
  const ways = {
    https_proxy: 'http://proxy.example:3128',
    NO_PROXY: '.example',
    NIX_SSL_CERT_FILE: '/etc/own.pem',
  }
  await world.upgrade({ ...ways, UPGRADE_SECRET: 'of the unit' })
  const environment = await world.sh('sort -u /tmp/git-env')
  for (const [name, value] of Object.entries(ways))
    expect(environment).toContain(`${name}=${value}`)
  expect(environment).not.toContain('UPGRADE_SECRET')
  expect(environment).not.toMatch(/^(http|all)_proxy=/m)
})

test('A full disk is recognized on a machine with another language', async () => {
  // a translated error message
  const full =
    'case ${LC_ALL-}${LANGUAGE-} in C.UTF-8) echo No space left on device ;; *) echo Auf dem Gerät ist kein Speicherplatz mehr verfügbar ;; esac; exit 1'
  const text = `two\nswitch does: ${full}`
  await world.push('two', { 'text.nix': JSON.stringify(text).replaceAll('${', '\\${') })
  const done = await world.upgrade({ LC_ALL: '', LANG: 'de_DE.UTF-8', LANGUAGE: 'de' })
  expect(done.outcome).toBe('no-space')
})

test('A run whose output is no longer read still completes', async () => {
  const commit = await world.push('two', { 'text.nix': '"two"' })
  await world.sh('bash -euo pipefail /root/agent 2>&1 | head -n 2', {
    env: { ...settings, UPGRADE_CHECKS: '["echo asked"]' },
    daemon: true,
  })
  expect(world.status()).toMatchObject({ outcome: 'upgraded', to: { commit } })
})

test('A switch that disconnects the terminal of a manual run is still validated, and rolled back', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two\nswitch does: touch /root/cut; sleep 2"' })
  // a terminal that is closed once the switch has begun
  const terminal = `
import os, pty, select, sys
process, terminal = pty.fork()
if not process: os.execvp(sys.argv[2], sys.argv[2:])
while not os.path.exists(sys.argv[1]):
    if select.select([terminal], [], [], 0.1)[0]: os.read(terminal, 4096)
os.close(terminal)
os.waitpid(process, 0)`
  await world.run(['bash', '-euo', 'pipefail', '/root/agent'], {
    env: { ...settings, UPGRADE_CHECKS: '["echo asked; [ ! -e /root/cut ]"]' },
    daemon: true,
    around: ['python3', '-c', terminal, `${world.dir}/root/cut`],
  })
  expect(world.status()).toMatchObject({ outcome: 'validation-failed', notRestored: [] })
  expect(await world.state()).toBe(before)
})

test('The first status is synced before it is renamed, and later ones are not synced', async () => {
  const model = inPlaceOf('sync', 'echo "$*" >>/root/synced; exec /root/own-sync "$@"')
  world.write('root/agent', `${model}\n${agent}`)
  await world.sh('rm -f /var/lib/nix-local-upgrade/status.json')
  await world.upgrade({})
  await world.upgrade({})
  const synced = (await world.sh('cat synced')).split('\n')
  expect(synced.filter((line) => line.endsWith('/status.json.new'))).toHaveLength(1)
})

test('A revision without history is identified by its whole hash, and stays once it was validated', async () => {
  const before = await world.sh('readlink /nix/var/nix/profiles/system /run/current-system')
  await world.push('two', { 'text.nix': '"two"' })
  const { to } = await world.upgrade()
  const [profile, running] = before.split('\n')
  const hash = 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
  const held = await world.sh('readlink /nix/var/nix/profiles/system /run/current-system')
  // the power failed between the last two steps of an upgrade to a tarball
  await world.sh(`cd /var/lib/nix-local-upgrade
    echo '${hash} 1700000000 ${to!.toplevel} now' >deployed
    jq --null-input --arg boot "$(cat /proc/sys/kernel/random/boot_id)" '{ stage: "system", bootId: $boot,
      candidate: "${hash}", revision: "${hash}", remote: "1700000000", toplevel: "${to!.toplevel}",
      profile: "${profile}", running: "${running}" }' >transaction.json`)
  const done = await world.upgrade({ UPGRADE_MODE: 'remote', UPGRADE_HOOKS: '["false"]' })
  expect(done).toMatchObject({ outcome: 'failed', phase: 'hooks', notRestored: [] })
  expect(done.said).toContain('recovering from a run that did not end')
  expect(await world.sh('readlink /nix/var/nix/profiles/system /run/current-system')).toBe(held)
  expect(await world.sh('ls /var/lib/nix-local-upgrade')).not.toContain('transaction')
})

test('A hook that fails while the clock is set has failed, and not exceeded its time limit', async () => {
  world.write(
    'root/agent',
    `timeout() { SECONDS=$((SECONDS + 36000)); command timeout "$@"; }\n${agent}`,
  )
  const done = await world.upgrade({ UPGRADE_HOOKS: '["exit 3"]' })
  expect(done.reason).toBe('The hook `exit 3` failed')
})

test('A command that reads its input in a manual run gets none, and does not wait for the terminal', async () => {
  const terminal = 'import pty, sys; pty.spawn(sys.argv[1:])'
  const env = { ...settings, UPGRADE_PHASE_HOOK: 'f() { [ "$1" != hooks ] || cat; }; f' }
  const agentOf = agent.replace(
    'timeout --kill-after=10 300 bash',
    'timeout --kill-after=1 20 bash',
  )
  expect(agentOf).not.toBe(agent)
  world.write('root/agent', agentOf)
  const command = ['bash', '-euo', 'pipefail', '/root/agent']
  const { stdout } = await world.run(command, {
    env,
    daemon: true,
    around: ['python3', '-c', terminal],
  })
  expect(stdout).toContain('up-to-date: ')
  expect(stdout).not.toContain('The phase hook failed')
})

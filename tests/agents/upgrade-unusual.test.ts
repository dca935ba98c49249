/** An upgrade of a host with an unusual user, network or disk. */
import { existsSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { missingForRoot } from './root.ts'
import {
  agent,
  copyWorld,
  flake,
  makeUpgradeWorld,
  settings,
  type UpgradeWorld,
} from './upgrade.ts'

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

test.each([' rebase ', ' bookmark set head-follows ', ' op restore '])(
  'A file that the user saves as jj begins `%s` is still there after a bad commit',
  async (at) => {
    await world.rain(`echo 'first thoughts' >notes; jj status`)
    await world.sh(`cp /usr/bin/jj /root/own-jj; chmod 755 /root /root/own-jj; cat >/root/jj <<'END'
#!/bin/bash
case "$*" in *"${at}"*) [ -e /home/rain/edited ] || { touch /home/rain/edited; echo 'an hour of work' >>/home/rain/nix-config/notes; } ;; esac
exec /root/own-jj "$@"
END
chmod 755 /root/jj`)
    world.write('root/agent', `mount --bind /root/jj /usr/bin/jj\n${agent}`)
    await world.push('two', { 'text.nix': '"build fails"' })
    expect((await world.upgrade()).outcome).toBe('build-failed')
    expect(await world.rain('cat notes; git log --format=%s -1')).toContain('an hour of work')
    await world.push('good', { 'text.nix': '"good"' })
    expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
    expect(await world.rain('cat notes')).toContain('an hour of work')
  },
)

test('An ignored file is still there after a bad commit that adds a file with the same name', async () => {
  await world.rain(`echo local.env >>.git/info/exclude; echo 'the only copy' >local.env`)
  await world.push('bad', { 'local.env': 'theirs', 'text.nix': '"build fails"' })
  const done = await world.upgrade()
  expect(await world.rain('cat local.env')).toBe('the only copy')
  expect(done).toMatchObject({ outcome: 'failed', notRestored: [] })
  expect(done.reason).toContain('local.env')
  await world.rain('mv local.env ../mine')
  expect((await world.upgrade()).outcome).toBe('build-failed')
})

test('If NixOS needs a reboot for a change, the commit is not blamed, and counts as deployed once it is booted', async () => {
  world.write(
    'root/words',
    "dbus-implementation : dbus -> broker\nPre-switch check 'switchInhibitors' failed\nPre-switch checks failed\n",
  )
  await world.push('bus', { 'text.nix': '"switch does: cat /root/words >&2; exit 1"' })
  const before = await world.state()
  const done = await world.upgrade()
  expect(done).toMatchObject({ outcome: 'failed', notRestored: [] })
  expect(done.reason).toMatch(
    /^NixOS requires a reboot for this change \(dbus-implementation : dbus -> broker\): `sudo /,
  )
  expect(await world.state()).toBe(before)
  const [, toplevel] = /--set (\S+) /.exec(done.reason)!
  // what the suggested command and a reboot do
  await world.sh(
    `nix-env --profile /nix/var/nix/profiles/system --set ${toplevel}; ln -sfn ${toplevel} /run/current-system`,
  )
  expect(await world.upgrade()).toMatchObject({ outcome: 'up-to-date', to: { toplevel } })
})

test('git finds programs that the user has installed in their own profile, such as an SSH command', async () => {
  await world.rain(`mkdir -p ~/.nix-profile/bin
    printf '#!/bin/sh\\nfor each; do :; done; exec sh -c "$each"\\n' >~/.nix-profile/bin/tunnel
    chmod +x ~/.nix-profile/bin/tunnel; git config --global core.sshCommand tunnel
    git config --global safe.directory '*'; git remote set-url origin ssh://far/home/rain/config.git`)
  await world.push('two', { 'text.nix': '"two"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('An unfinished edit in a merge is not deployed', async () => {
  await world.rain(`jj new main -m side; echo 1 >side.nix; jj new main -m other; echo 2 >other.nix
    jj new 'description(substring:"side")' 'description(substring:"other")'; jj status`)
  expect((await world.upgrade()).outcome).toBe('up-to-date')
  await world.rain(`printf '"half an edit"' >text.nix; jj status`)
  const done = await world.upgrade()
  expect(await world.sh('cat /run/current-system/text')).toBe('one')
  expect(done.outcome).toBe('failed')
  await world.rain('jj commit -m whole')
  expect((await world.upgrade()).outcome).toBe('upgraded')
})

test('A commit is not blamed for a network failure during validation', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  const reached = { REACH_COMMAND: 'test -e /root/link', REACH_TIMEOUT: '1' }
  expect((await world.upgrade(reached)).outcome).toBe('validation-failed')
  expect(await world.state()).toBe(before)
  await world.sh('touch /root/link')
  expect(await world.upgrade(reached)).toMatchObject({ outcome: 'upgraded' })
})

test.each([
  ['an empty ref', ': >refs/heads/trunk'],
  ['empty objects', 'find objects -type f | while read -r f; do chmod u+w $f; : >$f; done'],
  ['a HEAD of zeros', 'head -c 20 /dev/zero >HEAD'],
])('A mirror that a power cut left with %s locks no host out', async (what, how) => {
  const remote = {
    UPGRADE_MODE: 'remote',
    UPGRADE_REPOSITORY: '/nowhere',
    UPGRADE_FLAKE_URL: 'git+file:///home/rain/config.git',
  }
  await world.sh(`git config --global safe.directory '*'`)
  await world.push('two', { 'text.nix': '"two"' })
  expect((await world.upgrade(remote)).outcome).toBe('upgraded')
  await world.sh(`cd /var/lib/nix-local-upgrade/remote.git; ${how}`)
  await world.push(what, { 'text.nix': `"${what}"` })
  expect(await world.upgrade(remote)).toMatchObject({ outcome: 'upgraded' })
})

test('A reboot that is due is made at the end of an upgrade that was running at the timer, whatever its outcome', async () => {
  await world.sh('mkdir -p /old; touch /old/kernel; ln -sfn /old /run/booted-system')
  const model = `printf '#!/bin/sh\\necho "$*" >>/root/asked\\n' >/root/systemctl; chmod +x /root/systemctl; mount --bind /root/systemctl /usr/bin/systemctl`
  await world.rain('git remote set-url origin https://127.0.0.1:1/config.git')
  const env = {
    ...settings,
    UPGRADE_ALLOW_REBOOT: 'true',
    UPGRADE_REBOOT_WINDOW: '00:00-00:00',
    UPGRADE_HOOKS: '["sleep 4"]',
  }
  const script = `${model}; bash -euo pipefail /root/agent & sleep 2; bash -euo pipefail /root/agent --reboot; wait`
  const { stdout } = await world.run(['bash', '-c', script], { env, daemon: true })
  expect(stdout).toContain('it will see to the reboot')
  expect(stdout).toContain('offline: ')
  expect(existsSync(`${world.dir}/root/asked`)).toBe(true)
})

test('A host that was booted into a specialisation counts as up to date', async () => {
  const special = flake.replace(
    'chmod +x $out/bin/switch-to-configuration',
    'chmod +x $out/bin/switch-to-configuration; mkdir -p $out/specialisation/s',
  )
  await world.push('special', { 'flake.nix': special })
  expect((await world.upgrade()).outcome).toBe('upgraded')
  const s = await world.sh(
    'ln -sfn $(readlink -f /run/current-system)/specialisation/s /run/current-system; readlink -f /run/current-system',
  )
  expect((await world.upgrade()).outcome).toBe('up-to-date')
  expect(await world.sh('readlink -f /run/current-system')).toBe(s)
})

test('A signing key with a passphrase does not block upgrades', async () => {
  await world.rain(`ssh-keygen -q -t ed25519 -N secret -f ~/key; jj config set --user signing.behavior own
    jj config set --user signing.backend ssh; jj config set --user signing.key ~/key.pub; echo draft >draft`)
  await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade()
  expect([done.outcome, done.reason]).toEqual([
    'upgraded',
    expect.stringContaining('the rebased commits are unsigned'),
  ])
  expect(await world.rain('cat draft')).toBe('draft')
})

test('The status names no generation if there is none, and no commit for a system that the user switched to', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  const refused = await world.upgrade({ UPGRADE_CHECKS: '["false"]' })
  expect(refused.to).toMatchObject({ generation: null })
  await world.push('three', { 'text.nix': '"three"' })
  const done = await world.upgrade()
  expect(done.to!.generation).toBe(2)
  await world.sh(
    'nix-env -p /nix/var/nix/profiles/system --switch-generation 1; /nix/var/nix/profiles/system/bin/switch-to-configuration switch',
  )
  await world.push('four', { 'text.nix': '"build fails"' })
  const { from } = await world.upgrade()
  // generation 1 was built from another commit
  expect(from).toMatchObject({ generation: 1, commit: '' })
})

test('A conflict that a later commit settles does not count', async () => {
  await world.rain(`printf '"mine"' >text.nix; jj commit -m mine`)
  await world.push('two', { 'text.nix': '"two"' })
  await world.rain(
    `jj git fetch; jj rebase -b @ -o main@origin; printf '"both"' >text.nix; jj commit -m settled`,
  )
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  expect(await world.sh('cat /run/current-system/text')).toBe('both')
})

test('A conflict that a described working copy settles does not count, but one in the working copy does', async () => {
  await world.rain(`printf '"mine"' >text.nix; jj commit -m mine`)
  await world.push('two', { 'text.nix': '"two"' })
  await world.rain(`jj git fetch; jj rebase -b @ -o main@origin; jj status`)
  expect(await world.upgrade()).toMatchObject({ outcome: 'conflict' })
  await world.rain(`printf '"both"' >text.nix; jj describe -m settled`)
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('An interrupted checkout is finished, even if the user’s jj updates stale working copies automatically', async () => {
  await world.rain(
    'jj config set --user snapshot.auto-update-stale true; echo draft >draft; jj status',
  )
  await world.push('two', { 'text.nix': '"two"', 'a.nix': '1', 'b.nix': '2' })
  await world.rain(
    `jj git fetch --ignore-working-copy; jj --ignore-working-copy rebase -b @ -o main@origin; printf '"two"' >text.nix; printf 1 >a.nix`,
  )
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  expect(await world.rain(`cat draft; jj log --no-graph -r 'divergent()' -T commit_id`)).toBe(
    'draft',
  )
})

test('A process that a switch leaves running does not inherit the lock', async () => {
  await world.push('two', { 'text.nix': '"two\\nswitch does: sleep 100 >/dev/null 2>&1 &"' })
  const { stdout } = await world.run(
    ['bash', '-c', 'bash -euo pipefail /root/agent; bash -euo pipefail /root/agent'],
    { env: settings, daemon: true, allow: [1] },
  )
  expect(stdout).toContain('upgraded: ')
  expect(stdout).not.toContain('locked: ')
})

test('A host without /boot, such as a container, is upgraded, and bad commits are remembered', async () => {
  await world.sh('rmdir /boot')
  await world.push('two', { 'text.nix': '"two"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  await world.push('bad', { 'text.nix': '"build fails"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'build-failed' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'skipped-known-bad' })
})

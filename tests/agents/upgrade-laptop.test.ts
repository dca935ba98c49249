/** Upgrades of a machine that sleeps, collects garbage and is rebuilt by hand. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { missingForRoot } from './root.ts'
import {
  agent,
  copyWorld,
  flake,
  killedIn,
  makeUpgradeWorld,
  quote,
  type UpgradeWorld,
} from './upgrade.ts'

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

const runs = (): Promise<string> => world.sh('cat /run/current-system/text')

test('Closing the lid while checks run does not shorten their time', async (context) => {
  if ((await world.sh('head -n 3 /proc/timer_list 2>/dev/null || true')) === '')
    context.skip('only root of the machine itself may ask how long it was awake')
  const commit = await world.push('two', { 'text.nix': '"two"' })
  // the time since the boot goes on while a machine sleeps
  const sleeps = `cp /proc/uptime /root/uptime; mount --bind /root/uptime /proc/uptime
    sleep() { read -r up rest </root/uptime; echo "$((\${up%.*} + 36000)).00 $rest" >/root/uptime; }`
  world.write('root/agent', `${sleeps}\n${agent}`)
  const done = await world.upgrade({
    UPGRADE_PATIENCE: '60',
    UPGRADE_CHECKS: JSON.stringify(['echo >>/root/asked; [ "$(wc -l </root/asked)" -ge 4 ]']),
  })
  expect(done).toMatchObject({ outcome: 'upgraded', to: { commit } })
})

test('A rollback works even if the old generation was garbage-collected meanwhile', async () => {
  const before = await world.sh('readlink -f /run/current-system')
  await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade({ UPGRADE_CHECKS: '["nix-collect-garbage -d; false"]' })
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed', notRestored: [] })
  expect(await world.sh('readlink -f /run/current-system /nix/var/nix/profiles/system')).toBe(
    `${before}\n${before}`,
  )
  expect(await runs()).toBe('one')
  // no generation with the rejected system is left to boot
  expect(await world.sh('ls -d /nix/var/nix/profiles/system-*-link | wc -l')).toBe('1')

  const commit = await world.push('three', { 'text.nix': '"three"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded', to: { commit } })
  // after a good upgrade nothing keeps the old system
  await world.sh('nix-collect-garbage -d')
  expect(await world.sh(`ls -d ${before} 2>/dev/null || true`)).toBe('')
})

test('A manual rebuild after an interrupted upgrade is left alone', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  expect((await world.upgrade({ UPGRADE_PHASE_HOOK: killedIn('validate') })).code).toBe(137)
  expect(await runs()).toBe('two')
  await world.sh(`mkdir hand; cp /home/rain/nix-config/flake.nix hand; echo '"by hand"' >hand/text.nix
    toplevel=$(nix build --no-link --print-out-paths path:/root/hand#toplevel)
    nix-env --profile /nix/var/nix/profiles/system --set $toplevel
    $toplevel/bin/switch-to-configuration switch`)
  const done = await world.upgrade({ UPGRADE_HOOKS: '["false"]' })
  expect(done).toMatchObject({ code: 1, outcome: 'failed', phase: 'hooks' })
  expect(await runs()).toBe('by hand')
  expect(await world.sh('tail -n 1 switched')).toBe('switch by hand')
  expect(done.said).toContain('could not put back: profile (set by somebody else since)')
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'upgraded' })
})

test('While a rebuild is running, recovery from an interrupted upgrade is postponed', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  expect((await world.upgrade({ UPGRADE_PHASE_HOOK: killedIn('validate') })).code).toBe(137)
  const lock = 'exec 7>>/run/nixos/switch-to-configuration.lock; flock 7'
  world.write('root/agent', `${lock}\n${agent}`)
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'locked' })
  world.write('root/agent', agent)
  const done = await world.upgrade({ UPGRADE_CHECKS: '["false"]' })
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed', notRestored: [] })
  expect(await runs()).toBe('one')
})

test('All bad revisions are remembered, not only the last one', async () => {
  const bad = await world.push('two', { 'text.nix': '"two, whose switch fails"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'switch-failed' })
  await world.push('three', { 'text.nix': '"three, whose switch fails"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'switch-failed' })
  await world.sh(`git --git-dir /home/rain/config.git update-ref refs/heads/main ${bad}`)
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'skipped-known-bad' })
})

test('A system that was switched to by hand during an upgrade stays', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  const byHand = 'mkdir -p /root/hand; ln -sfn /root/hand /run/current-system'
  const done = await world.upgrade({ UPGRADE_HOOKS: JSON.stringify([byHand]) })
  expect(done).toMatchObject({ code: 0, outcome: 'locked' })
  expect(done.reason).toContain('switched by somebody else in the meantime')
  expect(await world.sh('readlink /run/current-system')).toBe('/root/hand')
})

test('If the boot default differed from the running system, a rollback restores both', async () => {
  const one = await world.sh('readlink -f /run/current-system')
  await world.push('two', { 'text.nix': '"two"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  await world.sh(`${one}/bin/switch-to-configuration test`)
  const before = await world.state()
  await world.push('three', { 'text.nix': '"three"' })
  const done = await world.upgrade({ UPGRADE_CHECKS: '["false"]' })
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed', notRestored: [] })
  expect(await world.state()).toBe(before)
  expect(await world.sh('tail -n 2 switched')).toBe('boot two\ntest one')
})

test('The system that boots after a power cut becomes the profile', async () => {
  const one = await world.sh('readlink -f /run/current-system')
  await world.push('two', { 'text.nix': '"two"' })
  expect((await world.upgrade({ UPGRADE_PHASE_HOOK: killedIn('validate') })).code).toBe(137)
  // the boot loader has started the old system, which is golden
  await world.sh(`ln -sfn ${one} /run/current-system
    sed -i 's/"bootId":"[^"]*"/"bootId":"another"/' /var/lib/nix-local-upgrade/transaction.json`)
  const done = await world.upgrade({ UPGRADE_HOOKS: '["false"]' })
  expect(done).toMatchObject({ code: 1, phase: 'hooks', notRestored: [] })
  expect(await world.sh('readlink -f /nix/var/nix/profiles/system')).toBe(one)
  expect(await world.sh('tail -n 1 switched')).toBe('boot one')
})

test('The system that boots after a power cut stays, even if its generation was garbage-collected', async () => {
  const one = await world.sh('readlink -f /run/current-system')
  await world.push('two', { 'text.nix': '"two"' })
  expect((await world.upgrade({ UPGRADE_PHASE_HOOK: killedIn('validate') })).code).toBe(137)
  // golden has its own gcroot
  await world.sh(`ln -sfn ${one} /run/current-system; ln -sfn ${one} /run/booted-system
    rm /nix/var/nix/profiles/system-1-link
    sed -i 's/"bootId":"[^"]*"/"bootId":"another"/' /var/lib/nix-local-upgrade/transaction.json`)
  const done = await world.upgrade({ UPGRADE_HOOKS: '["false"]' })
  expect(done).toMatchObject({ code: 1, phase: 'hooks', notRestored: [] })
  expect(await world.sh('readlink -f /nix/var/nix/profiles/system')).toBe(one)
  expect(await world.sh('cat /nix/var/nix/profiles/system-*-link/text')).toBe('one')
  expect(await world.sh('tail -n 1 switched')).toBe('boot one')
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded', notRestored: [] })
})

test('A specialisation that boots after a power cut stays, and the profile becomes its generation', async () => {
  const special = flake.replace(
    'chmod +x $out/bin/switch-to-configuration',
    'chmod +x $out/bin/switch-to-configuration; mkdir -p $out/specialisation/s',
  )
  await world.push('special', { 'flake.nix': special })
  const one = (await world.upgrade()).to!.toplevel
  await world.push('two', { 'text.nix': '"two"' })
  expect((await world.upgrade({ UPGRADE_PHASE_HOOK: killedIn('validate') })).code).toBe(137)
  await world.sh(`ln -sfn ${one}/specialisation/s /run/current-system
    sed -i 's/"bootId":"[^"]*"/"bootId":"another"/' /var/lib/nix-local-upgrade/transaction.json`)
  const done = await world.upgrade({ UPGRADE_HOOKS: '["false"]' })
  expect(done).toMatchObject({ code: 1, phase: 'hooks', notRestored: [] })
  expect(await world.sh('readlink -f /nix/var/nix/profiles/system /run/current-system')).toBe(
    `${one}\n${one}/specialisation/s`,
  )
  expect(await world.sh('tail -n 1 switched')).toBe('boot one')
})

test.each([
  ['by a whole path', (profile: string) => `ln -sfn ${profile}-1-link ${profile}`],
  [
    'to no generation',
    (profile: string) => `ln -sfn "$(readlink -f ${profile})" ${profile}; rm ${profile}-1-link`,
  ],
])(
  'A profile that the user has linked %s is rolled back too, in as many runs as it takes',
  async (_, link) => {
    const one = await world.sh('readlink -f /run/current-system')
    const profile = '/nix/var/nix/profiles/system'
    await world.sh(link(profile))
    await world.push('two', { 'text.nix': '"two"' })
    const done = await world.upgrade({ UPGRADE_CHECKS: '["touch /boot/unwritable; false"]' })
    expect(done).toMatchObject({ outcome: 'validation-failed', notRestored: ['boot entries'] })
    await world.sh('rm /boot/unwritable')
    expect(await world.upgrade()).toMatchObject({ outcome: 'skipped-known-bad', notRestored: [] })
    expect(await world.sh(`readlink -f ${profile}; cat ${profile}-*-link/text`)).toBe(`${one}\none`)
    await world.push('three', { 'text.nix': '"three"' })
    expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded', notRestored: [] })
  },
)

test('A system that was switched to by hand during validation stays, and is not reported as deployed by the upgrade', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  const byHand = 'mkdir -p /root/hand; ln -sfn /root/hand /run/current-system'
  const done = await world.upgrade({ UPGRADE_CHECKS: JSON.stringify([byHand]) })
  expect(done).toMatchObject({ code: 0, outcome: 'locked', notRestored: [] })
  expect(done.reason).toContain('switched by somebody else in the meantime')
  expect(await world.sh('readlink /run/current-system')).toBe('/root/hand')
  expect(await world.sh('cat /var/lib/nix-local-upgrade/deployed')).not.toContain(done.to!.commit)
  // the next run deploys the commit
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded', to: done.to! })
})

test('A link beside the profile that the user has made by hand is not a generation', async () => {
  const one = await world.sh('readlink -f /run/current-system')
  const profiles = '/nix/var/nix/profiles'
  await world.sh(`ln -sfn ${one} ${profiles}/system-known-good-link`)
  await world.push('two', { 'text.nix': '"two"' })
  expect((await world.upgrade({ UPGRADE_PHASE_HOOK: killedIn('validate') })).code).toBe(137)
  await world.sh(`ln -sfn ${one} /run/current-system
    sed -i 's/"bootId":"[^"]*"/"bootId":"another"/' /var/lib/nix-local-upgrade/transaction.json`)
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded', notRestored: [] })

  await world.sh(`touch -h -d '8 days ago' ${profiles}/system-*-link`)
  await world.push('three', { 'text.nix': '"three"' })
  const done = await world.upgrade({ UPGRADE_KEEP_GENERATIONS: '1' })
  expect(done.reason).toBe(`Runs ${done.to!.commit.slice(0, 12)}`)
  expect(await world.sh(`ls ${profiles} | grep system`)).toBe(
    'system\nsystem-3-link\nsystem-known-good-link',
  )
})

test('A host that has never upgraded also refuses a trunk that was rewritten', async () => {
  await world.sh('rm /var/lib/nix-local-upgrade/deployed')
  await world.sh(
    'cd other; git checkout -q --orphan anew; git commit -qm anew; git push -qf origin HEAD:main',
    { user: 'rain' },
  )
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'diverged', phase: 'fetch' })
})

/** The boot loader's EFI variables, and a bootctl that writes them only in this root. */
const variables = '/sys/firmware/efi/efivars'
const id = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f'
const bootctl = `#!/bin/bash
case $1 in set-default) name=LoaderEntryDefault ;; set-oneshot) name=LoaderEntryOneShot ;; *) exit 1 ;; esac
file=${variables}/$name-${id}
[ -n "$2" ] || { rm -f "$file"; exit 0; }
{ printf '\\x07\\0\\0\\0'; printf '%s' "$2" | sed 's/./&\\n/g' | while read -r c; do printf '%s\\0' "$c"; done; printf '\\0\\0'; } >"$file"
`

test.each([
  ['are as before', 'windows.conf', 'tool.conf'],
  ['are none, as before', '', ''],
])(
  'Without a golden generation, the boot default and the one-shot entry %s',
  async (_, byDefault, next) => {
    world.write('root/bootctl', bootctl)
    await world.sh(`mkdir -p ${variables}; chmod +x bootctl
    ./bootctl set-default ${quote(byDefault)}; ./bootctl set-oneshot ${quote(next)}`)
    const both = `cd ${variables}; for name in LoaderEntryDefault LoaderEntryOneShot; do
    echo "$(cat $name-${id} 2>/dev/null | tr -d '\\0-\\7')"; done`
    world.write('root/agent', `mount --bind /root/bootctl /usr/bin/bootctl\n${agent}`)
    await world.push('two', {
      'text.nix': '"two\\nswitch does: bootctl set-default two.conf; bootctl set-oneshot two.conf"',
    })
    const done = await world.upgrade({ UPGRADE_CHECKS: '["false"]' })
    expect(done).toMatchObject({ code: 1, outcome: 'validation-failed', notRestored: [] })
    expect(`${await world.sh(both)}\n`.split('\n').slice(0, 2)).toEqual([byDefault, next])
  },
)

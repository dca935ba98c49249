import type { Case, Scene } from './family.ts'
import { powerCutAt } from './interrupted.ts'
import { standsStill } from './still.ts'
import { profileOf } from './subject.ts'
import { livesEast, ownZone } from './time-zone.ts'
import { comes } from './trial.ts'
import { deploys, module, note, noted, seen, upgrades, withOptions } from './upgrade.ts'

/** What a power cut leaves in the store and in the profile. */
export const powerCuts: Case[] = [
  {
    name: 'power-cut-spoils',
    title:
      'a power cut after a build empties registered store paths and Nix’s caches: all are made again, except that a path in use is named instead',
    promise: 'whole',
    own: true,
    limit: 400,
    ends: 'main',
    run: spoiltByPowerCut,
  },
  {
    name: 'power-cut-spoils-profile',
    title:
      'a power cut once the profile has moved empties a store path of the new generation: the path is built again before it is deployed',
    promise: 'whole',
    own: true,
    limit: 400,
    ends: 'main',
    run: spoiltInProfile,
  },
  {
    name: 'power-cut-resumed',
    title:
      'the power fails amid an upgrade, and nothing starts another: it resumes by itself after the boot, and a boot after that starts none',
    promise: 'whole',
    own: true,
    limit: 400,
    ends: 'main',
    run: resumedAfterBoot,
  },
  {
    name: 'power-cut-replaced',
    title:
      'the power fails once the profile has moved, and another commit is pushed: the interrupted generation is removed from the profile',
    promise: 'whole',
    own: true,
    limit: 400,
    ends: 'main',
    run: replacedAfterPowerCut,
  },
]

async function resumedAfterBoot(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const soon = (text: string) =>
    withOptions(vm, 'resumeDelay = lib.mkOverride 10 "20s";', noted(text))
  await world.config.commit(soon('one'), 'Resumes soon')
  await deploys(scene, vm)
  await world.config.commit(soon('two'), 'Two')
  await powerCutAt(scene, vm, () => vm.holdUpgradeAt('build', { limit: 90 }))
  const { unit } = vm.subject
  await comes(scene, vm, 'the upgrade has resumed', 120, upgradeEnded(unit))
  check('outcome', 'upgraded', (await vm.status())?.outcome ?? undefined)
  check('the commit runs', 'two', await seen(vm))
  await vm.reboot()
  const { stdout } = await vm.root(
    `until systemctl is-active --quiet timers.target; do sleep 1; done
    systemctl show --value -p ActiveState -p ConditionResult ${unit}-resume.timer`,
  )
  check('a boot after a finished upgrade resumes none', 'inactive\nno\n', stdout)
}

/** Shell condition: a run of the upgrade has ended in this boot. In this order, as one may begin between the questions. */
const upgradeEnded = (unit: string): string =>
  `[ -n "$(systemctl show --value -p InvocationID ${unit}.service)" ] && [ "$(systemctl show --value -p ActiveState ${unit}.service)" != activating ]`

/**
 * Starts an upgrade, and cuts the power when it has moved the profile and done nothing after that.
 * @returns the generation that the profile had then
 */
async function cutAtProfile(scene: Scene): Promise<string> {
  const { vm } = scene
  const profile = '/nix/var/nix/profiles/system'
  let moved = ''
  await powerCutAt(scene, vm, async () => {
    const differs = `[ ! ${profile} -ef ${scene.start(vm)} ]`
    await standsStill(scene, vm, `${vm.subject.unit}.service`, differs)
    moved = await vm.ask(`sync -f /nix/var; readlink -f ${profile}`)
  })
  scene.check('the former system runs', scene.start(vm), await vm.running())
  return moved
}

async function replacedAfterPowerCut(scene: Scene): Promise<void> {
  const { vm, world } = scene
  await world.config.commit(note(vm, 'two'), 'Two')
  const cut = await cutAtProfile(scene)
  await world.config.commit(note(vm, 'three'), 'Three')
  await upgrades(scene, vm, { outcome: 'upgraded' })
  const links = await vm.ask('readlink -f /nix/var/nix/profiles/system-*-link')
  scene.check('the interrupted generation is in the profile', false, links.includes(cut))
}

async function spoiltInProfile(scene: Scene): Promise<void> {
  const { vm, world } = scene
  await world.config.commit(module(vm, builtModule()), 'Built')
  await cutAtProfile(scene)
  const fault = scene.fault('a store path without its content', vm.host)
  const path = '/nix/store/*-lab-built'
  const kept = await vm.ask(`${profileOf(vm.subject)}
    nix-store --query --requisites "$profile" | grep -c -e -lab-built$`)
  scene.must('the profile refers to the built store path', '1', kept)
  const size = await vm.ask(`${spoils(path)}; stat -c %s ${path}`)
  fault.bit(size === '0', `it has ${size} bytes`)
  await upgrades(scene, vm, { outcome: 'upgraded' })
  scene.check('the emptied store path has its content again', 'two', await seen(vm))
  fault.healed(true, 'it was built again')
}

/** A file of /etc that the host builds, and to which the system refers only by way of another path. */
const builtModule = (): string => `{ lib, pkgs, ... }:
  let built = pkgs.runCommand "lab-built" { } "echo two >$out"; in
  { environment.etc."lab-case".source = pkgs.runCommand "lab-link" { } "ln -s \${built} $out"; ${ownZone} }\n`

/** Empties a store path as a power cut does, and gives it the mtime that Nix gives all store paths. */
const spoils = (path: string): string =>
  `mount -o remount,rw /nix/store 2>/dev/null || true; : >${path}; touch -d @1 ${path}`

async function spoiltByPowerCut(scene: Scene): Promise<void> {
  const { vm, world, must } = scene
  // what was made before the power cut is told by its time
  await livesEast(vm, 9)
  await world.config.commit(module(vm, builtModule()), 'Built')
  // sync, so that the result is the same each time: what a real power cut loses is chance
  await powerCutAt(scene, vm, async () => {
    await vm.holdUpgradeAt('preflight', { limit: 90 })
    await vm.root('sync')
  })
  const fault = scene.fault('store paths without their content', vm.host)
  // one path is kept in use by a gcroot
  const spoil = `echo kept >/tmp/lab-kept; kept=$(nix-store --add /tmp/lab-kept)
    ln -sfn $kept /nix/var/nix/gcroots/lab-kept
    for path in /nix/store/*-lab-built $kept; do nix-store --verify-path $path
      ${spoils('$path')}; nix-store --verify-path $path 2>/dev/null || stat -c %s $path; done`
  const sizes = (await vm.ask(spoil, { allow: 'any' })).split('\n').join(' ')
  fault.bit(sizes === '0 0', `they have ${sizes} bytes`)
  // Nix does not sync its caches to the disk either
  const caches = `cd .cache/nix && for file in *-cache-*.sqlite; do printf spoilt >$file && rm -f $file-*; done; ls -d *-cache-*.sqlite`
  const names = await vm.askUser(caches)
  must('Nix’s caches are damaged', /sqlite/, names)
  const kept =
    /; spoilt by a power cut, but in use, so not made anew: \/nix\/store\/\S+-lab-kept(;|$)/
  await upgrades(scene, vm, { outcome: 'upgraded', reason: kept })
  scene.check('the emptied store path has its content again', 'two', await seen(vm))
  await vm.root('rm /nix/var/nix/gcroots/lab-kept && nix-store --delete /nix/store/*-lab-kept')
  fault.healed(true, 'it was built again, and what was in use is gone')
}

import type { Case, Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { standsStill } from './still.ts'
import { profileOf } from './subject.ts'
import { comes, validated } from './trial.ts'
import { cloneOf, failingUnit, module, note, program, seen, upgrades } from './upgrade.ts'

/** Phases of an upgrade that succeeds, in order. */
const phases = [
  ...['lock', 'recover', 'hooks', 'dotfiles', 'fetch', 'rebase'],
  ...['build', 'preflight', 'switch', 'validate', 'clean', 'done'],
] as const

interface Interruption {
  name: string
  /** What happens; the moment follows. */
  title: string
  limit: number
  /** @param reached waits until the upgrade is there */
  at: (scene: Scene, vm: Machine, reached: () => Promise<void>) => Promise<void>
}

interface Unforeseen extends Interruption {
  /** Outcome of the next upgrade after an interrupted rollback. */
  afterRollback: string | RegExp
}

/** By a person or a shutdown: the upgrade has the time to report it. */
const stopped: Interruption = {
  name: 'stopped',
  title: 'the upgrade is stopped when it',
  limit: 300,
  at: stopAt,
}

const unforeseen: Unforeseen[] = [
  {
    name: 'killed',
    title: 'the upgrade is killed when it',
    limit: 300,
    at: (_, vm, reached) => killAt(vm, reached),
    afterRollback: 'skipped-known-bad',
  },
  {
    name: 'power-cut',
    title: 'the power fails when the upgrade',
    limit: 400,
    at: powerCutAt,
    afterRollback: /^(validation-failed|skipped-known-bad)$/,
  },
]

/** Work that takes long enough to be interrupted in the middle. */
const middles = [
  {
    phase: 'build',
    module:
      '{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.runCommand "lab-slow" { } "sleep 10; echo two > $out"; }\n',
    atWork: 'ls /nix/store/*-lab-slow.lock',
  },
  {
    phase: 'switch',
    module: `{ pkgs, ... }: { systemd.services.lab-slow = { wantedBy = [ "multi-user.target" ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "${program('sleep 10')}"; }; }; }\n`,
    atWork: '[ "$(systemctl show --value -p ActiveState lab-slow.service)" = activating ]',
  },
]

/** True while a process holds the switch lock. To try the lock could take it from the next switch. */
const switchAtWork =
  'grep -q ":$(stat -c %i /run/nixos/switch-to-configuration.lock 2>/dev/null || echo none) " /proc/locks'

const atProfile = {
  name: 'at-profile',
  title: 'has moved the profile',
  // polls without a pause: the next step follows within a second
  reached: (_: Scene, { subject }: Machine) =>
    `now() { ${profileOf(subject)}; readlink "$profile"; }; at=$(now); until [ "$(now)" != "$at" ]; do :; done`,
}

/** Moments that can be seen from outside, with any subject. */
const moments = [
  atProfile,
  {
    name: 'at-lock',
    title: 'takes the switch lock',
    reached: () => `until ${switchAtWork}; do sleep 0.05; done`,
  },
  {
    name: 'at-some-time',
    title: 'is at a random point',
    // scaled to what an upgrade takes: mostly before its switch, sometimes after its end
    reached: ({ random, patience }: Scene) => `sleep ${(random() * 8 * patience).toFixed(2)}`,
  },
]

/** Upgrades that are cut off in the middle: after each of them the next one succeeds. */
export const interrupted: Case[] = [
  ...unforeseen.flatMap((one): Case[] => [
    ...phases.map((phase) => inPhase(one, phase)),
    ...middles.map((middle) => inMiddle(one, middle)),
    ...moments.map((moment) => atMoment(one, moment)),
    inRollback(one),
    inCheckout(one),
  ]),
  afterCheckout(),
  ...middles.map((middle) => inMiddle(stopped, middle)),
]

function inPhase({ name, title, limit, at }: Interruption, phase: (typeof phases)[number]): Case {
  return {
    name: `${name}-in-${phase}`,
    title: `${title} enters ${phase}: the next upgrade succeeds`,
    promise: 'whole',
    own: true,
    limit,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      await at(scene, vm, () => vm.holdUpgradeAt(phase, { limit: 90 }))
      // once validation has passed the upgrade stands; anything earlier is redone
      const held = phases.indexOf(phase) > phases.indexOf('validate')
      await upgrades(scene, vm, { outcome: held ? 'up-to-date' : 'upgraded' })
    },
  }
}

function inRollback({ name, title, limit, at, afterRollback }: Unforeseen): Case {
  return {
    name: `${name}-in-rollback`,
    title: `${title} begins to roll back: the next upgrade completes the rollback`,
    promise: 'whole',
    own: true,
    needs: ['rollback'],
    limit,
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, failingUnit), 'Bad')
      await at(scene, vm, () => vm.holdUpgradeAt('rollback', { limit: 90 }))
      await upgrades(scene, vm, { outcome: afterRollback })
    },
  }
}

function inMiddle(
  { name, title, limit, at }: Interruption,
  { phase, module: text, atWork }: (typeof middles)[number],
): Case {
  return {
    name: `${name}-amid-${phase}`,
    title: `${title} is in the middle of its ${phase}: the next upgrade succeeds`,
    promise: 'whole',
    limit,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, text), 'Slow')
      await at(scene, vm, async () => {
        await vm.root(`systemctl start --no-block ${vm.subject.unit}.service`)
        await comes(scene, vm, `the ${phase} is at work`, 90, atWork)
      })
      // a generation that was booted meanwhile may already count as deployed
      await upgrades(scene, vm, { outcome: /^(upgraded|up-to-date)$/ })
    },
  }
}

function atMoment(
  { name, title, limit, at }: Interruption,
  moment: (typeof moments)[number],
): Case {
  return {
    name: `${name}-${moment.name}`,
    title: `${title} ${moment.title}: the next upgrade succeeds`,
    promise: 'whole',
    limit,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      await at(scene, vm, async () => {
        await vm.root(
          `systemctl start --no-block ${vm.subject.unit}.service; ${moment.reached(scene, vm)}`,
          { timeout: 90 * vm.patience },
        )
        const state = `systemctl show --value -p ActiveState ${vm.subject.unit}.service`
        scene.event(`it is ${(await vm.agent(state)).stdout.trim()} when it is met`)
      })
      await upgrades(scene, vm, { outcome: /^(upgraded|up-to-date)$/ })
    },
  }
}

/** Files of a commit that take a while to be written. */
const many = 1000
const file = (index: number): string => `labmany/${String(index).padStart(4, '0')}`
const files = Array.from({ length: many }, (_, index) => [file(index), `${index}\n`] as const)

function inCheckout({ name, title, limit, at }: Unforeseen): Case {
  return {
    name: `${name}-amid-checkout`,
    title: `${title} is in the middle of writing the clone's files: the next upgrade finishes that, and the host's own commit is there once`,
    promise: 'whole',
    own: true,
    needs: ['clone'],
    limit,
    ends: 'main',
    run: (scene) =>
      checksOut(scene, (clone) =>
        at(scene, scene.vm, async () => {
          const { vm, event, must } = scene
          const begun = `[ -e ${clone}/${file(many / 10)} ]`
          await standsStill(scene, vm, `${vm.subject.unit}.service`, begun)
          await vm.root(namesReachDisk)
          const written = Number((await vm.user(`ls ${clone}/labmany | wc -l`)).stdout)
          event(`${written} of ${many} files are written`)
          must('the files are written only in part', true, written < many)
        }),
      ),
  }
}

function afterCheckout(): Case {
  return {
    name: 'power-cut-after-checkout',
    title:
      'the power fails once the upgrade has written the clone’s files: all are on the disk, none counts as an edit, and the host’s own commit is there once',
    promise: 'whole',
    own: true,
    needs: ['clone'],
    limit: 400,
    ends: 'main',
    run: (scene) =>
      checksOut(scene, () =>
        powerCutAt(scene, scene.vm, async () => {
          await scene.vm.holdUpgradeAt('build', { limit: 90 })
          await scene.vm.root(namesReachDisk)
        }),
      ),
  }
}

/** Upgrades a host that has its own commit to a commit with many files, and interrupts the upgrade with `amid`. */
async function checksOut(scene: Scene, amid: (clone: string) => Promise<void>): Promise<void> {
  const { vm, world, check } = scene
  const inClone = cloneOf(scene, vm)
  const clone = await inClone('pwd')
  await inClone('echo mine >mine && jj commit --quiet -m Mine')
  const two = await world.config.commit(
    { ...note(vm, 'two'), ...Object.fromEntries(files) },
    'Two, with many files',
  )
  await amid(clone)
  await upgrades(scene, vm, { outcome: 'upgraded' })
  check('the remote’s change runs', 'two', await seen(vm))
  const log = await inClone(`git log --format=%s ${two}..HEAD`)
  check('the host’s own commit is on the remote’s, once', 'Mine', log)
  const left = 'git status --porcelain; git diff --name-only HEAD; cat mine; ls labmany | wc -l'
  check('the clone’s files are those of its commit', `mine\n${many}`, await inClone(left))
}

/**
 * Shell command that waits until the file system has written file names to the disk (5 s), but not yet contents (30 s):
 * after a power cut, files that were not synced are then there, and empty.
 */
export const namesReachDisk = 'sleep 7'

/** Kills the upgrade and everything that it started, as systemd would. */
export async function killAt(vm: Machine, reached: () => Promise<void>): Promise<void> {
  await reached()
  const unit = `${vm.subject.unit}.service`
  // an upgrade that has already ended leaves nothing to kill, and that is fine
  await vm.root(`systemctl kill --signal=KILL ${unit} 2>/dev/null`, { allow: 'any' })
  const state = `$(systemctl show --value -p ActiveState ${unit})`
  await vm.until(
    'the killed upgrade to be gone',
    20,
    `case "${state}" in failed | inactive) ;; *) false ;; esac`,
  )
  await noSwitch(vm)
  await vm.releaseUpgrade()
}

/** A switch that runs in a separate unit survives the kill, and the next upgrade would find it running. */
const noSwitch = (vm: Machine): Promise<string> =>
  vm.until('no switch to be at work', 90, `! ${switchAtWork}`)

async function stopAt(scene: Scene, vm: Machine, reached: () => Promise<void>): Promise<void> {
  await reached()
  await vm.root(`systemctl stop ${vm.subject.unit}.service`, { timeout: 120 * vm.patience })
  await noSwitch(vm)
  if (!vm.subject.status) return
  const { outcome, reason } = (await vm.status()) ?? {}
  scene.check(
    'the status says that the upgrade was stopped',
    /^failed: .*signal/,
    `${outcome}: ${reason}`,
  )
}

/** Cuts the power once `reached` resolves, and waits until the next boot is validated. */
export async function powerCutAt(
  scene: Scene,
  vm: Machine,
  reached: () => Promise<void>,
): Promise<void> {
  const before = await vm.bootId()
  await reached()
  await vm.cutPower()
  await vm.powerOn()
  const seconds = await vm.awaitBoot(before, { limit: 120 })
  scene.event(`${vm.host} recovered`, { host: vm.host, seconds })
  if (scene.golden(vm)) await comes(scene, vm, 'the boot is validated', 90, validated)
}

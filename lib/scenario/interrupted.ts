import type { Case, Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { comes, validated } from './trial.ts'
import { failingUnit, module, note, program, upgrades } from './upgrade.ts'

/** Phases of an upgrade that succeeds, in order. */
const phases = [
  ...['lock', 'recover', 'hooks', 'dotfiles', 'fetch', 'rebase'],
  ...['build', 'preflight', 'switch', 'validate', 'clean', 'done'],
] as const

interface Interruption {
  name: string
  /** What happens; the phase follows. */
  title: string
  limit: number
  /** @param reached waits until the upgrade is there */
  at: (scene: Scene, vm: Machine, reached: () => Promise<void>) => Promise<void>
  /** What the next upgrade comes to where it had begun to put a bad commit back. */
  afterRollback: string | RegExp
}

const interruptions: Interruption[] = [
  {
    name: 'killed',
    title: 'the upgrade is killed as it',
    limit: 300,
    at: (_, vm, reached) => killAt(vm, reached),
    afterRollback: 'skipped-known-bad',
  },
  {
    name: 'power-cut',
    title: 'the power fails as the upgrade',
    limit: 400,
    at: powerCutAt,
    afterRollback: /^(validation-failed|skipped-known-bad)$/,
  },
]

/** Work that takes so long that something can come in the middle of it. */
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

/** Upgrades that something ends in the middle: whatever it was, the next one is whole. */
export const interrupted: Case[] = interruptions.flatMap((one): Case[] => [
  ...phases.map((phase) => inPhase(one, phase)),
  ...middles.map((middle) => inMiddle(one, middle)),
  inRollback(one),
])

function inPhase({ name, title, limit, at }: Interruption, phase: (typeof phases)[number]): Case {
  return {
    name: `${name}-in-${phase}`,
    title: `${title} enters ${phase}: the next one is whole`,
    limit,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      await at(scene, vm, () => vm.holdUpgradeAt(phase, { limit: 90 }))
      // what was validated has held, and all before that is done anew
      const held = phases.indexOf(phase) > phases.indexOf('validate')
      await upgrades(scene, vm, { outcome: held ? 'up-to-date' : 'upgraded' })
    },
  }
}

function inRollback({ name, title, limit, at, afterRollback }: Interruption): Case {
  return {
    name: `${name}-in-rollback`,
    title: `${title} begins to put things back: the next one does it`,
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
    title: `${title} is in the middle of its ${phase}: the next one is whole`,
    limit,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, text), 'Slow')
      await at(scene, vm, async () => {
        await vm.root('systemctl start --no-block nix-local-upgrade.service')
        await comes(scene, vm, `the ${phase} is at work`, 90, atWork)
      })
      // one that was booted meanwhile may have been taken up
      await upgrades(scene, vm, { outcome: /^(upgraded|up-to-date)$/ })
    },
  }
}

/** Kills the upgrade and all that it started, as systemd would. */
async function killAt(vm: Machine, reached: () => Promise<void>): Promise<void> {
  await reached()
  await vm.root('systemctl kill --signal=KILL nix-local-upgrade.service')
  await vm.until(
    'the killed upgrade to be gone',
    20,
    '! systemctl is-active --quiet nix-local-upgrade.service && [ "$(systemctl show --value -p ActiveState nix-local-upgrade.service)" = failed ]',
  )
  await vm.releaseUpgrade()
}

/** Cuts the power, and waits until the next boot was validated. */
async function powerCutAt(scene: Scene, vm: Machine, reached: () => Promise<void>): Promise<void> {
  const before = await vm.bootId()
  await reached()
  await vm.cutPower()
  await vm.powerOn()
  const seconds = await vm.awaitBoot(before, { limit: 120 })
  scene.event(`${vm.host} recovered`, { host: vm.host, seconds })
  await comes(scene, vm, 'the boot is validated', 90, validated)
}

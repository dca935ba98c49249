import type { Case, Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { comes, validated } from './trial.ts'
import { failingUnit, module, note, upgrades } from './upgrade.ts'

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
  at: (scene: Scene, vm: Machine, phase: string) => Promise<void>
  /** What the next upgrade comes to when it had begun to put a bad commit back. */
  afterRollback: string | RegExp
}

const interruptions: Interruption[] = [
  {
    name: 'killed',
    title: 'the upgrade is killed as it',
    limit: 300,
    at: (_, vm, phase) => killAt(vm, phase),
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

/** Upgrades that something ends in the middle: whatever it was, the next one is whole. */
export const interrupted: Case[] = interruptions.flatMap((one): Case[] => [
  ...phases.map((phase) => inPhase(one, phase)),
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
      await at(scene, vm, phase)
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
      await at(scene, vm, 'rollback')
      await upgrades(scene, vm, { outcome: afterRollback })
    },
  }
}

/** Kills the upgrade and all that it started where it enters a phase, as systemd would. */
async function killAt(vm: Machine, phase: string): Promise<void> {
  await vm.holdUpgradeAt(phase, { limit: 90 })
  await vm.root('systemctl kill --signal=KILL nix-local-upgrade.service')
  await vm.until(
    'the killed upgrade to be gone',
    20,
    '! systemctl is-active --quiet nix-local-upgrade.service && [ "$(systemctl show --value -p ActiveState nix-local-upgrade.service)" = failed ]',
  )
  await vm.releaseUpgrade()
}

/** Cuts the power where the upgrade enters a phase, and waits until the next boot was validated. */
async function powerCutAt(scene: Scene, vm: Machine, phase: string): Promise<void> {
  const before = await vm.bootId()
  await vm.holdUpgradeAt(phase, { limit: 90 })
  await vm.cutPower()
  await vm.powerOn()
  const seconds = await vm.awaitBoot(before, { limit: 120 })
  scene.event(`${vm.host} recovered`, { host: vm.host, seconds })
  await comes(scene, vm, 'the boot is validated', 90, validated)
}

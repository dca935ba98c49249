import type { Case, Machine, Scene } from './scenario.ts'
import { validated } from './trial.ts'
import { failingUnit, module, note, upgrades } from './upgrade.ts'

/** Phases of an upgrade that succeeds, in order. */
const phases = [
  ...['lock', 'recover', 'hooks', 'dotfiles', 'fetch', 'rebase'],
  ...['build', 'preflight', 'switch', 'validate', 'clean', 'done'],
] as const

/** What the next upgrade comes to: what was validated has held, and all before that is done anew. */
const afterwards = (phase: (typeof phases)[number]): string =>
  phases.indexOf(phase) > phases.indexOf('validate') ? 'up-to-date' : 'upgraded'

/** Upgrades that something ends in the middle: whatever it was, the next one is whole. */
export const interrupted: Case[] = [
  ...phases.flatMap((phase): Case[] => [
    {
      name: `killed-in-${phase}`,
      title: `the upgrade is killed as it enters ${phase}: the next one is whole`,
      limit: 300,
      ends: 'main',
      run: async (scene) => {
        const { vm, world } = scene
        await world.config.commit(note(vm, 'two'), 'Two')
        await killAt(vm, phase)
        await upgrades(scene, vm, { outcome: afterwards(phase) })
      },
    },
    {
      name: `power-cut-in-${phase}`,
      title: `the power fails as the upgrade enters ${phase}: it boots, and the next one is whole`,
      limit: 400,
      ends: 'main',
      run: async (scene) => {
        const { vm, world } = scene
        await world.config.commit(note(vm, 'two'), 'Two')
        await powerCutAt(scene, vm, phase)
        await upgrades(scene, vm, { outcome: afterwards(phase) })
      },
    },
  ]),
  {
    name: 'killed-in-rollback',
    title: 'the upgrade is killed as it begins to put things back: the next one does it',
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, failingUnit), 'Bad')
      await killAt(vm, 'rollback')
      await upgrades(scene, vm, { outcome: 'skipped-known-bad' })
    },
  },
  {
    name: 'power-cut-in-rollback',
    title: 'the power fails as the upgrade begins to put things back: the next one does it',
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, failingUnit), 'Bad')
      await powerCutAt(scene, vm, 'rollback')
      await upgrades(scene, vm, { outcome: /^(validation-failed|skipped-known-bad)$/ })
    },
  },
]

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
  await vm.until('the boot to be validated', 90, validated)
}

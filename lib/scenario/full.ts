import type { Case, Scene } from './family.ts'
import { ofGuest } from './host-module.ts'
import { watcherUnit } from './status-log.ts'
import { deployedBy, module, note, upgrades } from './upgrade.ts'

/** Upgrades without disk space for what they bring. */
export const full: Case[] = [
  {
    name: 'boot-full',
    title:
      '/boot has no room for the new first stage, or for that but not for golden’s copy of it: the upgrade is refused before the switch',
    promise: 'space',
    needs: ['preflight'],
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, `{ ${ofGuest('anotherFirstStage')} }\n`), 'Larger')
      const fault = scene.fault('/boot full', vm.host)
      const fill = `free=$(df --output=avail -B1M /boot | tail -n 1)
        fallocate --length "$((free - 2))M" /boot/lab-fill; df --output=avail -B1M /boot | tail -n 1`
      // if df fails, Number('') would be 0 and look like a full disk
      const left = Number.parseInt(await vm.ask(fill))
      fault.bit(left < 4, `${left} MiB are left`)
      const reason = /^\/boot has \d+ MiB free and \d+ MiB are needed/
      const refused = await upgrades(scene, vm, { outcome: 'no-space', phase: 'preflight', reason })
      // golden keeps its own copies, which need room as well
      if (scene.golden(vm)) {
        const built = deployedBy(scene, refused).toplevel
        await vm.root(`rm /boot/lab-fill; free=$(df --output=avail -B1K /boot | tail -n 1)
          size=$(($(stat --dereference --format %s ${built}/initrd) / 1024))
          fallocate --length "$((free - size * 3 / 2))K" /boot/lab-fill`)
        await upgrades(scene, vm, { outcome: 'no-space', phase: 'preflight', reason })
      }
      scene.check('nothing was deployed', scene.start(vm), await vm.running())
      const free = await vm.ask('rm /boot/lab-fill; df --output=avail -B1M /boot | tail -n 1')
      fault.healed(Number(free) > 20, `${free} MiB are free`)
      await upgrades(scene, vm, { outcome: 'upgraded' })
    },
  },
  {
    name: 'store-full',
    title:
      'the disk is full to the last byte, or too full for a build: the upgrade says so and does not build',
    promise: 'space',
    own: true,
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      // leaves a status of an earlier run
      await upgrades(scene, vm, { outcome: 'up-to-date' })
      await world.config.commit(note(vm, 'two'), 'Two')
      const fault = scene.fault('store full', vm.host)
      await fillsUp(scene)
      const fill = `free=$(df --output=avail -B1M /nix/store | tail -n 1)
        fallocate --length "$((free - 150))M" /var/lib/lab-fill; df --output=avail -B1M /nix/store | tail -n 1`
      const left = Number.parseInt(await vm.ask(fill, { timeout: 60 * vm.patience }))
      fault.bit(left < 200, `${left} MiB are left`)
      const reason = /^The store has \d+ MiB free and 256 MiB are needed/
      await upgrades(scene, vm, { outcome: 'no-space', phase: 'build', reason })
      const free = await vm.ask(
        'rm /var/lib/lab-fill; df --output=avail -B1M /nix/store | tail -n 1',
        { timeout: 60 * vm.patience },
      )
      fault.healed(Number(free) > 1000, `${free} MiB are free`)
      await upgrades(scene, vm, { outcome: 'upgraded' })
    },
  },
]

/** Upgrades without room for a single file: the status must not be that of the run before. */
async function fillsUp(scene: Scene): Promise<void> {
  const { vm } = scene
  const files = '/var/lib/lab-full /var/lib/lab-full-to-the-last'
  const limit = { timeout: 120 * vm.patience }
  // the watcher of the lab cannot write either
  const fill = `systemctl stop ${watcherUnit}; set -- ${files}; free=$(df --output=avail -B1M /var/lib | tail -n 1); fallocate --length "$((free - 1))M" $1
    dd if=/dev/zero of=$2 bs=64K 2>/dev/null; dd if=/dev/zero bs=4K >>$2 2>/dev/null; df --output=avail -B1K /var/lib | tail -n 1`
  const left = Number.parseInt(await vm.ask(fill, limit))
  scene.must('no free space is left', 0, left)
  const reason = /No space left on device|MiB free/
  await upgrades(scene, vm, { outcome: /^(failed|no-space)$/, reason })
  await vm.root(`rm -f ${files}; systemctl start ${watcherUnit}`, limit)
}

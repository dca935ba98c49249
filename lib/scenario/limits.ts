import { readHome, syncByUnit } from './dotfile-sync.ts'
import type { Case, Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { rebuild } from './trial.ts'
import { silenceRemote } from './uplink.ts'
import {
  deploys,
  module,
  note,
  noted,
  oneshot,
  optionsModule,
  program,
  seen,
  upgrades,
  withOptions,
} from './upgrade.ts'

/** A command that never ends by itself, and by which its process is found. */
const forever = 'sleep 86399'

/** Whether a process of it is left, told so that the question does not find itself. */
const left = `pgrep --full '^(.*/)?sleep 8639[9]$' >/dev/null && echo running || echo ended`

const stops = async (scene: Scene, vm: Machine): Promise<boolean> =>
  scene.check('what hung is ended', 'ended', (await vm.root(left)).stdout.trim())

/** Each time limit of the agents, with something that never ends. */
export const limits: Case[] = [
  {
    name: 'remote-silent',
    title: 'the remote takes the connection and never answers: the fetch has a time limit',
    promise: 'patience',
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      const speaks = await silenceRemote(scene, vm, 'config')
      const reason = /did not answer within 60 s/
      await upgrades(scene, vm, { outcome: 'offline', reason, limit: 20, waits: 60 })
      await speaks()
      await upgrades(scene, vm, { outcome: 'upgraded' })
    },
  },
  {
    name: 'dotfiles-silent',
    title:
      'the dotfiles come from a remote that never answers: given up after a while, and the commit is deployed',
    promise: 'dotfiles',
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      await world.dotfiles.commit({ dot_labrc: lineThree }, 'Edit')
      const speaks = await silenceRemote(scene, vm, 'dotfiles')
      await deploys(scene, vm, { waits: 60 })
      const { stdout } = await vm.root('jq -r .outcome /var/lib/chezmoi-sync/status.json')
      scene.check('the dotfiles were given up', 'offline', stdout.trim())
      await speaks()
      await catchesUp(scene, vm)
    },
  },
  {
    name: 'script-hangs',
    title:
      'a script among the dotfiles never ends: it is ended and told, and the commit is deployed all the same',
    promise: 'dotfiles',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const limit = Math.ceil(10 * vm.patience)
      const option = `myModules.services.chezmoiSync.applyTimeout = lib.mkForce ${limit};`
      const host = (more = ''): string => `{ lib, ... }: { ${option} ${more} }\n`
      await world.config.commit(module(vm, host()), 'Limit')
      await deploys(scene, vm)
      await vm.root('touch /run/lab-hang')
      const script = `#!/bin/sh
[ ! -e /run/lab-hang ] || exec ${forever}
[ ! -e /run/lab-daemon ] || setsid sleep 86398 </dev/null >/dev/null 2>&1 &
`
      await world.dotfiles.commit({ 'run_after_lab.sh': script, dot_labrc: lineThree }, 'Script')
      await world.config.commit(module(vm, host(noted('two'))), 'Two')
      const { toplevel } = await deploys(scene, vm, { waits: limit })
      scene.ends(vm, toplevel)
      scene.check('the commit runs', 'two', await seen(vm))
      const said = 'jq -r \'.outcome + ": " + .reason\' /var/lib/chezmoi-sync/status.json'
      const { stdout } = await vm.root(said)
      scene.check('it is told', `failed: Cannot apply: no end within ${limit} s`, stdout.trim())
      await stops(scene, vm)
      await vm.root('rm /run/lab-hang')
      scene.check('a run after it is well', /^(synced|up-to-date)$/, await syncs(vm))
      // what a script starts and leaves behind is not the sync
      await vm.root('touch /run/lab-daemon')
      for (const run of ['a run by hand', 'and one after it']) {
        const printed = await vm.user('chezmoi-sync 2>&1 | grep -o "phase: apply" | tail -n 1')
        scene.check(`${run} comes to its end`, 'phase: apply', printed.stdout.trim())
      }
      await vm.root("pkill --full '^sleep 8639[8]$'; rm /run/lab-daemon")
      const line = (await readHome(vm, '.labrc')).split('\n')[2]
      scene.check('the dotfiles are applied', 'line three', line)
    },
  },
  {
    name: 'hook-hangs',
    title: 'a hook that never ends has a time limit, and nothing is deployed',
    promise: 'checks',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const limit = Math.ceil(5 * vm.patience)
      const hook = `[ ! -e /run/lab-hang ] || exec ${forever}`
      const options = `hookTimeout = lib.mkForce ${limit}; preUpdateHooks = lib.mkForce [ "${hook}" ];`
      await world.config.commit(withOptions(vm, options), 'May hang')
      const { toplevel } = await deploys(scene, vm)
      await world.config.commit(withOptions(vm, options, noted('two')), 'Two')
      await vm.root('touch /run/lab-hang')
      const reason = new RegExp(`^The hook .*lab-hang.* did not end within ${limit} s`)
      const wanted = { outcome: 'failed', phase: 'hooks', reason, waits: limit }
      await upgrades(scene, vm, wanted)
      scene.check('nothing of the commit runs', toplevel, await vm.running())
      await stops(scene, vm)
      await vm.root('rm /run/lab-hang')
      scene.ends(vm, (await deploys(scene, vm)).toplevel)
    },
  },
  {
    name: 'build-hangs',
    title: 'a build that never ends has a time limit, and nothing is deployed',
    promise: 'refuse',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      // long enough for an evaluation, as that is of the build
      const limit = Math.ceil(15 * vm.patience)
      const options = `buildTimeout = lib.mkForce ${limit};`
      await world.config.commit(withOptions(vm, options), 'Limit')
      const { toplevel } = await deploys(scene, vm)
      scene.ends(vm, toplevel)
      const hangs = `environment.etc."lab-case".source = pkgs.runCommand "lab-hangs" { } "${program(forever)}";`
      await world.config.commit(withOptions(vm, options, hangs), 'Hangs')
      const reason = new RegExp(`^The build took longer than ${limit} s`)
      const wanted = { outcome: 'build-failed', phase: 'build', reason, waits: limit }
      await upgrades(scene, vm, wanted)
      scene.check('nothing of the commit runs', toplevel, await vm.running())
      await stops(scene, vm)
    },
  },
  {
    name: 'switch-hangs',
    title: 'a switch that never ends has a time limit: all goes back',
    promise: 'rollback',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      // long enough for a switch that is well, as the way back is one
      const limit = Math.ceil(15 * vm.patience)
      const options = `switchTimeout = lib.mkForce ${limit};`
      await world.config.commit(withOptions(vm, options), 'Limit')
      const { toplevel } = await deploys(scene, vm)
      scene.ends(vm, toplevel)
      await world.config.commit(withOptions(vm, options, oneshot('lab-hangs', forever)), 'Hangs')
      const reason = new RegExp(`^switch-to-configuration did not end within ${limit} s`)
      await upgrades(scene, vm, { outcome: 'switch-failed', reason, waits: limit })
      await stops(scene, vm)
    },
  },
  {
    name: 'check-hangs',
    title: 'a check that never ends has a time limit, and counts as failed',
    promise: 'checks',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const options = `validationChecks = [ "test ! -e /run/lab-hang || ${forever}" ];`
      // the agent that runs asks the checks of the generation that it belongs to
      await world.config.commit(withOptions(vm, options), 'May hang')
      const { toplevel } = await deploys(scene, vm)
      scene.ends(vm, toplevel)
      await world.config.commit(withOptions(vm, options, noted('hangs')), 'Hangs')
      await vm.root('touch /run/lab-hang')
      const reason = /^`test ! -e \/run\/lab-hang .*` failed/
      await upgrades(scene, vm, { outcome: 'validation-failed', reason, waits: 60 })
      await stops(scene, vm)
    },
  },
  {
    name: 'lock-hangs',
    title: 'a rebuild by hand never ends: the upgrade gives way for a time, and fails after it',
    promise: 'lock',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      // long enough for an upgrade to come to the lock: it is the limit of the whole run as well
      const limit = Math.ceil(20 * vm.patience)
      const option = optionsModule(`lockTimeout = lib.mkForce ${limit};`)
      const { toplevel } = await rebuild(scene, vm, option)
      scene.ends(vm, toplevel as `/${string}`)
      await vm.root(
        `systemd-run --quiet --wait ${toplevel}/bin/switch-to-configuration switch
        systemd-run --quiet --unit=lab-rebuild flock /run/nixos/switch-to-configuration.lock sleep infinity`,
        { timeout: 60 * vm.patience },
      )
      await world.config.commit(note(vm, 'two'), 'Two')
      const who = 'Another switch is at work: pid \\d+, .*flock .*'
      await upgrades(scene, vm, { outcome: 'locked', reason: new RegExp(`^${who}`) })
      const age = '$(ps -o etimes= -p "$(systemctl show --value -p MainPID lab-rebuild.service)")'
      await vm.until('the rebuild to count as hung', 30, `[ "${age}" -ge ${limit} ]`)
      const hung = new RegExp(`^${who}counts as hung`)
      await upgrades(scene, vm, { outcome: 'failed', phase: 'lock', reason: hung })
      await vm.root('systemctl stop lab-rebuild.service')
      scene.check('nothing of the commit runs', toplevel, await vm.running())
    },
  },
]

const lineThree = (text: string): string => text.replace('line 3\n', 'line three\n')

const syncs = async (vm: Machine): Promise<string> =>
  (await syncByUnit(vm)).status.outcome ?? 'nothing'

/** The dotfiles that a remote had kept to itself are applied. */
async function catchesUp(scene: Scene, vm: Machine): Promise<void> {
  scene.check('they catch up', 'synced', await syncs(vm))
  const line = (await readHome(vm, '.labrc')).split('\n')[2]
  scene.check('and are applied', 'line three', line)
}

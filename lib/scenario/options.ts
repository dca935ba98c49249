import { fromHome } from '../lab-settings.ts'
import { lineOf, readHome, setThird } from './dotfile-sync.ts'
import type { Case } from './family.ts'
import {
  deployedBy,
  deploys,
  deploysForGood,
  markers,
  module,
  noted,
  oneshot,
  seen,
  upgrades,
  withOptions,
  type Wanted,
} from './upgrade.ts'

/** Hosts that do not roll back when a check fails. */
const lenient: (Pick<Case, 'name' | 'title'> & { set: string; wanted: Wanted; later: RegExp })[] = [
  {
    name: 'notifies',
    title:
      'a check fails on a host set to notify: the upgrade reports the failure and keeps what it deployed, and later ones still report it',
    set: 'notify',
    wanted: {
      outcome: 'validation-failed',
      reason: /^`test ! -e \/run\/lab-no` failed; kept, as the host is set to notify$/,
    },
    later: /^Runs [0-9a-f]{12}; its validation failed: `test ! -e \/run\/lab-no` failed$/,
  },
  {
    name: 'ignores',
    title: 'a check fails on a host set to ignore: the upgrade counts as good and names the check',
    set: 'ignore',
    wanted: {
      outcome: 'upgraded',
      reason: /; ignored: `test ! -e \/run\/lab-no` failed$/,
    },
    later: /^Runs [0-9a-f]{12}$/,
  },
]

/** Hosts with options that differ from the defaults. */
export const options: Case[] = [
  ...lenient.map(({ name, title, set, wanted, later }): Case => ({
    name,
    title,
    promise: 'checks',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const choice = `onValidationFailure = lib.mkForce "${set}"; validationChecks = [ "test ! -e /run/lab-no" ];`
      await world.config.commit(withOptions(vm, choice), 'Choice')
      await deploys(scene, vm)
      await world.config.commit(withOptions(vm, choice, noted('two')), 'Two')
      await vm.root('touch /run/lab-no')
      // the agent gives a check 20 s to pass
      const told = await upgrades(scene, vm, { ...wanted, waits: 20 })
      scene.check('the commit that failed its checks still runs', 'two', await seen(vm))
      scene.ends(vm, deployedBy(scene, told).toplevel)
      await upgrades(scene, vm, { outcome: 'up-to-date', reason: later })
    },
  })),
  {
    name: 'build-in-switch',
    title:
      'a host builds as part of the switch: a good commit is deployed, and one that does not build changes nothing',
    promise: 'refuse',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const choice = 'buildBeforeSwitch = lib.mkForce false;'
      await world.config.commit(withOptions(vm, choice), 'Choice')
      await deploys(scene, vm)
      await world.config.commit(withOptions(vm, choice, noted('two')), 'Two')
      const { toplevel } = await deploysForGood(scene, vm)
      scene.check('the commit runs', 'two', await seen(vm))
      const bad = 'environment.etc."lab-case".source = pkgs.runCommand "lab-bad" { } "exit 1";'
      await world.config.commit(withOptions(vm, choice, bad), 'Bad')
      const reason = /lab-bad|Cannot build/
      await upgrades(scene, vm, { outcome: 'build-failed', phase: 'switch', reason })
      scene.check('the former system still runs', toplevel, await vm.running())
      await upgrades(scene, vm, { outcome: 'skipped-known-bad' })
    },
  },
  {
    name: 'dotfiles-left',
    title:
      'a host is set not to sync its dotfiles before an upgrade: it upgrades, and the dotfiles stay as they are',
    promise: 'dotfiles',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const left = 'myModules.services.chezmoiSync.syncBeforeUpdate = lib.mkForce false;'
      const host = (more = ''): ReturnType<typeof module> =>
        module(vm, `{ lib, ... }: { ${left} ${more} }\n`)
      await world.config.commit(host(), 'Left alone')
      await deploys(scene, vm)
      await world.dotfiles.commit({ dot_labrc: setThird }, 'Edit')
      await world.config.commit(host(noted('two')), 'Two')
      await deploysForGood(scene, vm)
      const line = lineOf(await readHome(vm, '.labrc'), 3)
      scene.check('the upgrade leaves the dotfiles unchanged', 'line 3', line)
    },
  },
  {
    name: 'turned-off',
    title:
      'a commit turns upgrades off: the run that deploys it succeeds, and leaves neither unit nor timer',
    promise: 'deploy',
    own: true,
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(withOptions(vm, 'enable = lib.mkForce false;'), 'No upgrades')
      await deploysForGood(scene, vm)
      const left = await vm.ask(
        'systemctl list-unit-files --no-legend "nix-local-upgrade*"; systemctl list-timers --all --no-legend "nix-local-upgrade*"',
      )
      scene.check('no upgrade unit or timer is left', '', left)
    },
  },
  {
    name: 'odd-path',
    title:
      'the path of the clone has a space and a number sign: the host is upgraded from it, with its local commit',
    promise: 'deploy',
    own: true,
    needs: ['clone'],
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const [flake, odd] = [fromHome(world.paths.flake), 'lab config #2']
      const choice = `repository = lib.mkForce "/home/${vm.vm.user}/${odd}";`
      await world.config.commit(withOptions(vm, choice), 'Elsewhere')
      await deploys(scene, vm)
      // the oracle looks for the clone at its former path
      await vm.user(`mv ${flake} '${odd}' && ln -s '${odd}' ${flake}`)
      await vm.user(`cd '${odd}' && echo own >world/own && jj commit --quiet -m Own`)
      await world.config.commit(withOptions(vm, choice, noted('two')), 'Two')
      await deploysForGood(scene, vm)
      scene.check('the commit runs', 'two', await seen(vm))
    },
  },
  {
    name: 'from-remote',
    title:
      'a host upgrades straight from the remote, without a clone: to a good commit, even if its copy of the remote is damaged, but not to a bad or rewritten one',
    promise: 'deploy',
    own: true,
    limit: 500,
    run: async (scene) => {
      const { vm, world } = scene
      const choice = `mode = lib.mkForce "remote"; flakeUrl = lib.mkForce "git+git://git.lab/config.git";`
      const host = (more = ''): ReturnType<typeof withOptions> => withOptions(vm, choice, more)
      await world.config.commit(host(), 'From the remote')
      await deploys(scene, vm)
      const two = await world.config.commit(host(noted('two')), 'Two')
      const to = await deploysForGood(scene, vm)
      scene.check('the status names the commit', two, to.commit)
      scene.check('the commit runs', 'two', await seen(vm))
      scene.check(
        'the upgrade ran in remote mode, without the clone',
        'remote',
        (await vm.status())?.mode,
      )
      // the copy holds nothing that cannot be fetched again
      const objects = '/var/lib/nix-local-upgrade/remote.git/objects'
      const spoil = `find ${objects} -type f | while read -r file; do chmod u+w $file; : >$file; echo; done | wc -l`
      const spoilt = Number(await vm.ask(spoil))
      scene.must('the agent’s copy of the remote is damaged', true, spoilt > 0)
      await upgrades(scene, vm, { outcome: 'up-to-date' })
      const motd = 'world/motd'
      await world.config.commit({ [motd]: markers }, 'Markers')
      await upgrades(scene, vm, {
        outcome: 'conflict',
        reason: new RegExp(`^Conflict in ${motd}$`),
      })
      const bad = host(`${noted('three')} ${oneshot('lab-bad', 'false')}`)
      await world.config.commit({ ...bad, [motd]: null }, 'Bad')
      const reason = /^lab-bad\.service has failed/
      await upgrades(scene, vm, { outcome: 'validation-failed', reason })
      scene.check('the former commit runs again', 'two', await seen(vm))
      await upgrades(scene, vm, { outcome: 'skipped-known-bad' })
      await world.config.commit(host(noted('other')), 'Other', { parent: world.start.config })
      const rewritten = new RegExp(`^${world.branch} was rewritten: .* does not descend from`)
      // refused on every run, not only on the first
      for (const _ of [1, 2]) {
        await upgrades(scene, vm, { outcome: 'diverged', phase: 'fetch', reason: rewritten })
      }
    },
  },
  {
    name: 'from-a-directory',
    title:
      'a host takes its flake from a directory that the remote lacks: the flake at the top is not used instead, and the host stays as it is',
    promise: 'refuse',
    own: true,
    run: async (scene) => {
      const { vm, world } = scene
      const choice = `mode = lib.mkForce "remote"; flakeUrl = lib.mkForce "git+git://git.lab/config.git?dir=lab-no";`
      await world.config.commit(withOptions(vm, choice), 'From a directory')
      const { toplevel } = await deploys(scene, vm)
      await world.config.commit(withOptions(vm, choice, noted('two')), 'Two')
      await upgrades(scene, vm, { outcome: 'build-failed', phase: 'build', reason: /lab-no/ })
      scene.ends(vm, toplevel)
    },
  },
]

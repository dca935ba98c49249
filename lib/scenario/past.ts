import { fromHome } from '../lab-settings.ts'
import { buildInGuest, comes, harmless, makesDefault } from './trial.ts'
import type { Case } from './family.ts'
import { ownFiles } from './host-module.ts'
import {
  deploys,
  deploysForGood,
  failingUnit,
  module,
  note,
  noted,
  oneshot,
  seen,
  upgrades,
  withOptions,
} from './upgrade.ts'

const declared = (check: string): string => `validationChecks = [ "${check}" ];`

/** Hosts with a history: switches by hand, failed services, earlier generations, unfinished rollbacks. */
export const past: Case[] = [
  {
    name: 'switched-by-hand',
    title:
      'the user has switched back by hand: a good commit is deployed, and a bad one rolls back to what the user switched to',
    promise: 'deploy',
    own: true,
    limit: 400,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      const two = await deploys(scene, vm)
      const switchBack = async (): Promise<void> => {
        const back = `systemd-run --quiet --wait ${scene.start(vm)}/bin/switch-to-configuration test`
        await vm.root(back, { timeout: 60 * vm.patience })
        scene.must(
          'the host runs the system switched to by hand',
          scene.start(vm),
          await vm.running(),
        )
      }
      await switchBack()
      const { from } = await upgrades(scene, vm, { outcome: 'upgraded' })
      // a system that the agent has not deployed may be of any commit
      const was = `${from?.commit || 'no commit'}, ${from?.toplevel}`
      scene.check('the status says what ran before', `no commit, ${scene.start(vm)}`, was)
      scene.check('the commit runs', 'two', await seen(vm))
      await switchBack()
      await world.config.commit(module(vm, failingUnit), 'Bad')
      await upgrades(scene, vm, { outcome: 'validation-failed' })
      scene.check('the system switched to by hand runs again', scene.start(vm), await vm.running())
      const profile = await vm.ask('readlink -f /nix/var/nix/profiles/system')
      scene.check('the system profile is unchanged', two.toplevel, profile)
      // like `nixos-rebuild switch --rollback`, which leaves the newer generation in place
      await vm.root('nix-env --profile /nix/var/nix/profiles/system --rollback')
      await switchBack()
      await world.config.commit(withOptions(vm, '', oneshot('lab-worse', 'false')), 'Bad again')
      await upgrades(scene, vm, { outcome: 'validation-failed' })
      const all = await vm.root('readlink -f /nix/var/nix/profiles/system-*-link')
      const left = all.stdout.includes(two.toplevel)
      scene.check('the newer generation stays in the profile', true, left)
      await world.config.commit(note(vm, 'three'), 'Three')
      await upgrades(scene, vm, { outcome: 'upgraded' })
    },
  },
  {
    name: 'switched-meanwhile',
    title:
      'the user switches while an upgrade builds: the user’s switch stays, and the upgrade says so',
    promise: 'lock',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const byHand = await buildInGuest(vm, world.paths.flake, harmless, scene.say)
      scene.ends(vm, byHand)
      const overtaken = async (text: string, command: string): Promise<void> => {
        const slow = `{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.runCommand "lab-slow-${text}" { } "sleep 45; echo ${text} > $out"; }\n`
        await world.config.commit(module(vm, slow), text)
        await vm.root('systemctl start --no-block nix-local-upgrade.service')
        await comes(
          scene,
          vm,
          `the upgrade builds ${text}`,
          90,
          `ls /nix/store/*-lab-slow-${text}.lock`,
        )
        await vm.root(command, { timeout: 60 * vm.patience })
        const reason = /^The system was switched by somebody else in the meantime/
        await upgrades(scene, vm, { outcome: 'locked', phase: 'switch', reason, waits: 45 })
        const profile = await vm.ask('readlink -f /nix/var/nix/profiles/system')
        scene.check('the system profile stays as the user set it', byHand, profile)
      }
      const switches = (action: string): string =>
        `systemd-run --quiet --wait ${byHand}/bin/switch-to-configuration ${action}`
      // half a switch at a time: first like `nixos-rebuild boot`, then what that leaves to do
      await overtaken('two', `${makesDefault(byHand)} && ${switches('boot')}`)
      scene.check('the former system still runs', scene.start(vm), await vm.running())
      await overtaken('three', switches('test'))
      scene.check('the system that the user switched to runs', byHand, await vm.running())
    },
  },
  {
    name: 'failed-before',
    title: 'services had already failed before the upgrade: a good commit is deployed all the same',
    promise: 'deploy',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      // more than one, and each switch tries to start them again
      const names = ['lab-old-one', 'lab-old-two']
      const units = names.map((name) => oneshot(name, 'test ! -e /run/lab-ill')).join(' ')
      await world.config.commit(withOptions(vm, '', units), 'Services')
      await deploys(scene, vm)
      const restart = `systemctl restart ${names.join(' ')}`
      await vm.root(`touch /run/lab-ill; ${restart} 2>/dev/null || true`)
      await world.config.commit(withOptions(vm, '', `${units} ${noted('two')}`), 'Two')
      await deploysForGood(scene, vm)
      const failed = `systemctl is-failed ${names.map((name) => `${name}.service`).join(' ')}`
      const found = (await vm.ask(failed, { allow: 'any' })).split('\n')
      scene.check('the failed services are still failed', 'failed failed', found.join(' '))
      await vm.root(`rm /run/lab-ill; ${restart}`)
    },
  },
  {
    name: 'failed-revert',
    title:
      'a commit reverts to an earlier state that now fails: it is rolled back, and the earlier generation stays in the profile',
    promise: 'rollback',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      const check = declared('test ! -e /run/lab-no')
      await world.config.commit(withOptions(vm, check), 'One')
      const one = await deploys(scene, vm)
      await world.config.commit(withOptions(vm, check, noted('two')), 'Two')
      await deploysForGood(scene, vm)
      await vm.root('touch /run/lab-no')
      await world.config.commit(withOptions(vm, check), 'Back to one')
      const back = await upgrades(scene, vm, { outcome: 'validation-failed', waits: 20 })
      scene.must('the revert builds the earlier system', one.toplevel, back.to?.toplevel)
      scene.check('the former commit runs again', 'two', await seen(vm))
      const link = `readlink -f /nix/var/nix/profiles/system-${one.generation}-link`
      const left = await vm.ask(link, { allow: 'any' })
      scene.check('the earlier generation stays in the profile', one.toplevel, left)
    },
  },
  {
    name: 'collected-meanwhile',
    title:
      'garbage is collected before the switch of an upgrade and during its checks: the new build survives, and so does the system to roll back to',
    promise: 'rollback',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      // the agent appends the phase, which is $0 here
      const collects = `sh -c 'case $0 in preflight | validate) [ ! -e /run/lab-no ] || { nix-collect-garbage -d >/dev/null 2>&1 && touch /run/lab-$0; } ;; esac'`
      const options = `phaseHook = lib.mkForce ${JSON.stringify(collects)}; ${declared('test ! -e /run/lab-no')}`
      await world.config.commit(withOptions(vm, options), 'One')
      const { toplevel } = await deploysForGood(scene, vm)
      await world.config.commit(withOptions(vm, options, noted('two')), 'Two')
      await vm.root('touch /run/lab-no')
      // the agent gives a check 20 s to pass
      const wanted = { outcome: 'validation-failed', limit: 180, waits: 20 }
      await upgrades(scene, vm, { ...wanted, reason: /^`test ! -e \/run\/lab-no` failed$/ })
      const said = await vm.ask('ls /run/lab-preflight /run/lab-validate', { allow: 'any' })
      const both = '/run/lab-preflight /run/lab-validate'
      scene.check('garbage was collected in both phases', both, said.replace('\n', ' '))
      scene.check('the former system runs again', toplevel, await vm.running())
    },
  },
  {
    name: 'own-bad-commit',
    title:
      'a local commit is bad: the upgrade fails, and once the user moves off that commit, the remote’s is deployed',
    promise: 'local',
    own: true,
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const clone = fromHome(world.paths.flake)
      await vm.user(`cd ${clone} && echo nonsense >${ownFiles}/all.nix && jj commit -m Bad`)
      await world.config.commit(note(vm, 'two'), 'Two')
      await upgrades(scene, vm, { outcome: 'build-failed' })
      await vm.user(`cd ${clone} && jj new ${world.branch}@origin`)
      await upgrades(scene, vm, { outcome: 'upgraded' })
      scene.check('the commit of the remote runs', 'two', await seen(vm))
    },
  },
  {
    name: 'unfinished-rollback',
    title:
      '/boot cannot be written during a rollback: once it can, the next run finishes the rollback and tries the commit again',
    promise: 'rollback',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      const check = declared('test ! -e /run/lab-no || ! mount -o remount,ro /boot')
      await world.config.commit(withOptions(vm, check), 'One')
      const { toplevel } = await deploys(scene, vm)
      await world.config.commit(withOptions(vm, check, noted('two')), 'Two')
      await vm.root('touch /run/lab-no')
      const fault = /not held against the revision, as \/boot is mounted read-only/
      const wanted = { outcome: 'validation-failed', left: 'boot entries', waits: 20 }
      await upgrades(scene, vm, { ...wanted, reason: fault })
      scene.check('the former system runs again', toplevel, await vm.running())
      // nothing is built while the rollback is unfinished
      const still = { outcome: 'failed', phase: 'recover', left: 'boot entries' }
      await upgrades(scene, vm, {
        ...still,
        reason: /^Cannot yet undo the changes of an earlier run/,
      })
      await vm.root('rm /run/lab-no; mount -o remount,rw /boot')
      const reason = /recovered from an earlier run that did not end/
      // the fault was the machine's, so the commit is tried again
      await deploysForGood(scene, vm, { reason })
    },
  },
]

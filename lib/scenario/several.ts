import { setThird } from './dotfile-sync.ts'
import { fromHome } from '../lab-settings.ts'
import type { Case } from './family.ts'
import { comes } from './trial.ts'
import { cutUplink } from './uplink.ts'
import {
  deploys,
  deploysForGood,
  module,
  note,
  noted,
  oneshot,
  seen,
  upgrades,
  withOptions,
} from './upgrade.ts'

const statusFile = '/var/lib/nix-local-upgrade/status.json'

/** Several of what there usually is one of: runs, fetches, local commits, checks. */
export const several: Case[] = [
  {
    name: 'remote-gone-later',
    title:
      'the remote goes away after an earlier upgrade: the run is offline, does not act on what was fetched before, and the next one catches up',
    promise: 'offline',
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      const { toplevel } = await deploys(scene, vm)
      await world.config.commit(note(vm, 'three'), 'Three')
      await world.dotfiles.commit({ dot_labrc: setThird }, 'From afar')
      const heal = await cutUplink(scene, vm)
      await upgrades(scene, vm, { outcome: 'offline', phase: 'fetch' })
      scene.check('the former system still runs', toplevel, await vm.running())
      const dotfiles = scene.subject.promises.has('dotfiles')
      if (dotfiles) {
        const said = await vm.ask('jq -r .outcome /var/lib/chezmoi-sync/status.json')
        scene.check('the dotfiles are offline as well', 'offline', said)
      }
      await heal()
      await deploys(scene, vm)
      scene.check('the newest commit runs after the outage', 'three', await seen(vm))
      if (!dotfiles) return
      scene.check(
        'the dotfiles are synced after the outage',
        'line three',
        await vm.askUser('sed -n 3p .labrc'),
      )
    },
  },
  {
    name: 'local-commits',
    title:
      'several local commits, by two authors: each is rebased exactly once, unchanged and in order',
    promise: 'local',
    own: true,
    run: async (scene) => {
      const { vm, world } = scene
      const clone = fromHome(world.paths.flake)
      // jj sets the author when a commit is begun, which is when the one before is finished
      const guest = '--config user.name=Guest --config user.email=guest@example.org'
      await vm.user(`cd ${clone}
        echo one >world/one.txt && jj ${guest} commit -m 'Own one'
        echo two >world/two.txt && jj commit -m 'Own two'
        echo three >world/three.txt && jj commit -m 'Own three'`)
      const template = `author.name() ++ " " ++ author.email() ++ " " ++ author.timestamp() ++ " " ++ description.first_line() ++ " " ++ diff.summary() ++ "\\n"`
      const own = (): Promise<string> =>
        vm.askUser(
          `cd ${clone} && jj log --no-graph --reversed -r '${world.branch}@origin..@-' -T '${template}'`,
        )
      const before = await own()
      scene.must(
        'there are three local commits by two authors',
        /Own one[^]*Guest[^]*Own two[^]*Own three/,
        before,
      )
      await world.config.commit(note(vm, 'two'), 'Two')
      await deploysForGood(scene, vm)
      scene.check('the local commits are unchanged', before, await own())
      const said = await vm.askUser(`cd ${clone}/world && cat one.txt two.txt three.txt`)
      scene.check(
        'the files of the local commits are unchanged',
        'one two three',
        said.replaceAll('\n', ' '),
      )
      scene.check('the remote’s change runs', 'two', await seen(vm))
    },
  },
  {
    name: 'twice-at-once',
    title:
      'a second upgrade starts in the middle of the first one’s switch: it names the first, which goes on undisturbed',
    promise: 'lock',
    own: true,
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const slow = `{ pkgs, ... }: { ${oneshot('lab-slow', 'sleep 15', 'RemainAfterExit = true;')} }\n`
      await world.config.commit(module(vm, slow), 'Slow')
      await vm.root('systemctl start --no-block nix-local-upgrade.service')
      const switching =
        '[ "$(systemctl show --value -p ActiveState lab-slow.service)" = activating ]'
      await comes(scene, vm, 'the first run switches', 90, switching)
      const second = await vm.root(`nix-local-upgrade 2>&1; echo "exit $?"; cat ${statusFile}`, {
        timeout: 60 * vm.patience,
      })
      const locked = /locked: nix-local-upgrade \(pid \d+, since .*\nexit 0\n/
      scene.check('the second run names the first', locked, second.stdout)
      scene.check(
        'the second run leaves status.json alone',
        /"phase":"switch","outcome":null/,
        second.stdout,
      )
      const ended = `jq -e .finished ${statusFile} && ! systemctl is-active --quiet nix-local-upgrade.service && [ "$(systemctl show --value -p ActiveState nix-local-upgrade.service)" != activating ]`
      await comes(scene, vm, 'the first run ends', 90, ended)
      scene.check('the first run succeeds', 'upgraded', (await vm.status())?.outcome ?? undefined)
    },
  },
  {
    name: 'edited-meanwhile',
    title:
      'the user describes a change or edits a file while an upgrade builds, and the build fails: description and edit stay',
    promise: 'local',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const file = `${fromHome(world.paths.flake)}/flake.nix`
      const failsLate = async (named: string, meanwhile: string): Promise<void> => {
        const slow = '"sleep 15; echo no luck >&2; exit 1"'
        const text = `{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.runCommand "${named}" { } ${slow}; }\n`
        await world.config.commit(module(vm, text), named)
        await vm.root('systemctl start --no-block nix-local-upgrade.service')
        await comes(scene, vm, `the upgrade builds ${named}`, 90, `ls /nix/store/*-${named}.lock`)
        await vm.user(meanwhile)
        const left = 'repository (changed by somebody else since)'
        await upgrades(scene, vm, { outcome: 'build-failed', phase: 'build', left })
      }
      // an operation of jj that changes no file
      const clone = `cd ${fromHome(world.paths.flake)}`
      await failsLate('lab-slow', `${clone} && jj describe --quiet -m 'Half done'`)
      const words = await vm.askUser(`${clone} && jj log --no-graph -r @ -T description`)
      scene.check('the description is still there', 'Half done', words)
      await failsLate('lab-slower', `echo '# edited meanwhile' >>${file}`)
      const said = await vm.askUser(`tail -n 1 ${file}`)
      scene.check('the edit is still there', '# edited meanwhile', said)
      await world.config.commit(note(vm, 'two'), 'Mended')
      await deploysForGood(scene, vm)
      const after = await vm.askUser(`tail -n 1 ${file}`)
      scene.check('the edit is still there after the next upgrade', '# edited meanwhile', after)
    },
  },
  {
    name: 'each-check-fails',
    title:
      'several checks: one that passes late is waited for; when one fails, it is named and the upgrade rolls back',
    promise: 'checks',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      const checks = ['/run/lab-one', '/run/lab-two']
      // with a tab, which a string of JSON must escape
      const declared = checks.map((file) => `"test ! -e\\t${file}"`).join(' ')
      // fails the first time that it is run
      const late = 'test -e /run/lab-asked || ! touch /run/lab-asked'
      const options = `validationChecks = [ "${late}" ${declared} ];`
      await world.config.commit(withOptions(vm, options), 'Checks')
      await deploysForGood(scene, vm)
      for (const file of checks) {
        await world.config.commit(withOptions(vm, options, noted(file)), file)
        await vm.root(`touch ${file}`)
        const reason = new RegExp(`^\`test ! -e\\s+${file}\` failed$`)
        // the agent gives a check 20 s to pass
        await upgrades(scene, vm, { outcome: 'validation-failed', reason, waits: 20 })
        await vm.root(`rm ${file}`)
      }
    },
  },
]

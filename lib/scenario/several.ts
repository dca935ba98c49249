import { fromHome } from '../lab-settings.ts'
import { syncByUnit } from './dotfile-sync.ts'
import type { Case, Scene } from './family.ts'
import { mkfifo } from './fifo.ts'
import type { Machine } from './machine.ts'
import { comes, rebuild } from './trial.ts'
import { deployedBy, deploys, module, note, program, seen, upgrades } from './upgrade.ts'

const statusFile = '/var/lib/nix-local-upgrade/status.json'

/** More than one of what there mostly is one of: runs, fetches, local commits, checks. */
export const several: Case[] = [
  {
    name: 'remote-gone-later',
    title: 'the remote goes away after a fetch that held: what was fetched then is no news of it',
    promise: 'offline',
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      const { toplevel } = await deploys(scene, vm)
      await world.config.commit(note(vm, 'three'), 'Three')
      const afar = (text: string): string => text.replace('line 3\n', 'line three\n')
      await world.dotfiles.commit({ dot_labrc: afar }, 'From afar')
      const heal = await cutUplink(scene, vm)
      await upgrades(scene, vm, { outcome: 'offline', phase: 'fetch' })
      scene.check('it runs what it ran', toplevel, await vm.running())
      const dotfiles = scene.subject.promises.has('dotfiles')
      if (dotfiles) {
        const { stdout } = await vm.root('jq -r .outcome /var/lib/chezmoi-sync/status.json')
        scene.check('the dotfiles are offline as well', 'offline', stdout.trim())
      }
      await heal()
      await deploys(scene, vm)
      scene.check('it has caught up', 'three', await seen(vm))
      if (!dotfiles) return
      const line = await vm.user('sed -n 3p .labrc')
      scene.check('so have its dotfiles', 'line three', line.stdout.trim())
    },
  },
  {
    name: 'local-commits',
    title: 'several commits of this host, by two authors: each is rebased once, whole and in order',
    promise: 'local',
    own: true,
    run: async (scene) => {
      const { vm, world } = scene
      const clone = fromHome(world.paths.flake)
      // the author of a commit is who began it, which is as the one before is finished
      const guest = '--config user.name=Guest --config user.email=guest@example.org'
      await vm.user(`cd ${clone}
        echo one >world/one.txt && jj ${guest} commit -m 'Own one'
        echo two >world/two.txt && jj commit -m 'Own two'
        echo three >world/three.txt && jj commit -m 'Own three'`)
      const template = `author.name() ++ " " ++ author.email() ++ " " ++ author.timestamp() ++ " " ++ description.first_line() ++ " " ++ diff.summary() ++ "\\n"`
      const own = async (): Promise<string> =>
        (
          await vm.user(
            `cd ${clone} && jj log --no-graph --reversed -r '${world.branch}@origin..@-' -T '${template}'`,
          )
        ).stdout.trim()
      const before = await own()
      scene.must(
        'there are three, by two authors',
        /Own one[^]*Guest[^]*Own two[^]*Own three/,
        before,
      )
      await world.config.commit(note(vm, 'two'), 'Two')
      const { toplevel } = await deploys(scene, vm)
      scene.ends(vm, toplevel)
      scene.check('its own commits are as they were', before, await own())
      const { stdout } = await vm.user(`cd ${clone}/world && cat one.txt two.txt three.txt`)
      scene.check('so is what is in them', 'one two three', stdout.trim().replaceAll('\n', ' '))
      scene.check('the remote’s change runs', 'two', await seen(vm))
    },
  },
  {
    name: 'twice-at-once',
    title: 'a second run in the middle of the switch: it names the first, which goes on',
    promise: 'lock',
    own: true,
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const slow = `{ pkgs, ... }: { systemd.services.lab-slow = { wantedBy = [ "multi-user.target" ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "${program('sleep 15')}"; }; }; }\n`
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
      scene.check('and leaves the status alone', /"phase":"switch","outcome":null/, second.stdout)
      const ended = `jq -e .finished ${statusFile} && ! systemctl is-active --quiet nix-local-upgrade.service && [ "$(systemctl show --value -p ActiveState nix-local-upgrade.service)" != activating ]`
      await comes(scene, vm, 'the first run ends', 90, ended)
      scene.check('as if nothing had been', 'upgraded', (await vm.status())?.outcome ?? undefined)
    },
  },
  {
    name: 'each-check-fails',
    title: 'several checks, of which a later one fails: it is named, and all goes back',
    promise: 'checks',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      const checks = ['/run/lab-one', '/run/lab-two']
      const declared = checks.map((file) => `"test ! -e ${file}"`).join(' ')
      const host = (more: string): ReturnType<typeof module> =>
        module(
          vm,
          `{ myModules.services.autoUpgrade.validationChecks = [ ${declared} ]; ${more} }\n`,
        )
      await world.config.commit(host(''), 'Checks')
      const { toplevel } = await deploys(scene, vm)
      scene.ends(vm, toplevel)
      for (const file of checks) {
        await world.config.commit(host(`environment.etc."lab-case".text = "${file}";`), file)
        await vm.root(`touch ${file}`)
        const reason = new RegExp(`^\`test ! -e ${file}\` failed$`)
        // the agent gives a check 20 s to come to hold
        await upgrades(scene, vm, { outcome: 'validation-failed', reason, waits: 20 })
        await vm.root(`rm ${file}`)
      }
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
      const host = (more: string): ReturnType<typeof module> =>
        module(
          vm,
          `{ myModules.services.autoUpgrade.validationChecks = [ "test ! -e /run/lab-hang || sleep infinity" ]; ${more} }\n`,
        )
      // the agent that runs asks the checks of the generation that it belongs to
      await world.config.commit(host(''), 'May hang')
      const { toplevel } = await deploys(scene, vm)
      scene.ends(vm, toplevel)
      await world.config.commit(host('environment.etc."lab-case".text = "hangs";'), 'Hangs')
      await vm.root('touch /run/lab-hang')
      const reason = /^`test ! -e \/run\/lab-hang .*` failed/
      await upgrades(scene, vm, { outcome: 'validation-failed', reason, waits: 60 })
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
      const edit = (text: string): string => text.replace('line 3\n', 'line three\n')
      await world.dotfiles.commit({ dot_labrc: edit }, 'Edit')
      const fault = scene.fault('silent remote of the dotfiles', vm.host)
      const speak = await mkfifo(`${world.dotfiles.dir}/HEAD`)
      const reaches =
        'timeout 5 git ls-remote -q git://10.0.3.100/dotfiles.git >/dev/null 2>&1; echo $?'
      const bitten = (await vm.root(reaches)).stdout.trim()
      fault.bit(bitten === '124', `git ls-remote exits with ${bitten} after 5 s`)
      await deploys(scene, vm, { waits: 60 })
      const { stdout } = await vm.root('jq -r .outcome /var/lib/chezmoi-sync/status.json')
      scene.check('the dotfiles were given up', 'offline', stdout.trim())
      await speak()
      await vm.until('the remote to answer', 30, `[ "$(${reaches})" = 0 ]`)
      fault.healed(true, 'git ls-remote exits with 0')
      scene.check('they catch up', 'synced', (await syncByUnit(vm)).status.outcome)
      const line = await vm.user('sed -n 3p .labrc')
      scene.check('and are applied', 'line three', line.stdout.trim())
    },
  },
  {
    name: 'notifies',
    title:
      'a check fails on a host that is only to be told: it says so, and keeps what it has deployed',
    promise: 'checks',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const host = (more: string): ReturnType<typeof module> =>
        module(
          vm,
          `{ lib, ... }: { myModules.services.autoUpgrade = { onValidationFailure = lib.mkForce "notify"; validationChecks = [ "test ! -e /run/lab-no" ]; }; ${more} }\n`,
        )
      await world.config.commit(host(''), 'Notify')
      await deploys(scene, vm)
      await world.config.commit(host('environment.etc."lab-case".text = "two";'), 'Two')
      await vm.root('touch /run/lab-no')
      // the agent gives a check 20 s to come to hold
      const told = await upgrades(scene, vm, {
        ...{ outcome: 'validation-failed', waits: 20 },
        reason: /^`test ! -e \/run\/lab-no` failed; kept, as the host is set to notify$/,
      })
      scene.check('it is kept', 'two', await seen(vm))
      scene.ends(vm, deployedBy(scene, told).toplevel)
      await upgrades(scene, vm, { outcome: 'up-to-date' })
    },
  },
  {
    name: 'from-remote',
    title:
      'a host without a clone upgrades straight from the remote: to a good commit, not to a bad or a rewritten one',
    promise: 'deploy',
    own: true,
    limit: 500,
    run: async (scene) => {
      const { vm, world } = scene
      const mode = `myModules.services.autoUpgrade = { mode = lib.mkForce "remote"; flakeUrl = lib.mkForce "git+git://git.lab/config.git"; };`
      const host = (more: string): ReturnType<typeof module> =>
        module(vm, `{ lib, pkgs, ... }: { ${mode} ${more} }\n`)
      const text = (word: string): string => `environment.etc."lab-case".text = "${word}";`
      await world.config.commit(host(''), 'From the remote')
      await deploys(scene, vm)
      const two = await world.config.commit(host(text('two')), 'Two')
      const to = await deploys(scene, vm)
      scene.ends(vm, to.toplevel)
      scene.check('it deployed the commit', two, to.commit)
      scene.check('it runs', 'two', await seen(vm))
      scene.check('it has done so without the clone', 'remote', (await vm.status())?.mode)
      // by what the clone knows, the oracle tells whether a commit follows another
      await vm.user(`cd ${fromHome(world.paths.flake)} && jj git fetch`)
      await upgrades(scene, vm, { outcome: 'up-to-date' })
      const bad = `systemd.services.lab-bad = { wantedBy = [ "multi-user.target" ]; serviceConfig = { Type = "oneshot"; ExecStart = "${program('false')}"; }; };`
      await world.config.commit(host(`${text('three')} ${bad}`), 'Bad')
      const reason = /^lab-bad\.service has failed/
      await upgrades(scene, vm, { outcome: 'validation-failed', reason })
      scene.check('it went back', 'two', await seen(vm))
      await upgrades(scene, vm, { outcome: 'skipped-known-bad' })
      await world.config.commit(host(text('other')), 'Other', { parent: world.start.config })
      const rewritten = new RegExp(`^${world.branch} was rewritten: .* does not descend from`)
      await upgrades(scene, vm, { outcome: 'diverged', phase: 'fetch', reason: rewritten })
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
      const option = `myModules.services.autoUpgrade.switchTimeout = lib.mkForce ${limit};`
      await world.config.commit(module(vm, `{ lib, ... }: { ${option} }\n`), 'Limit')
      const { toplevel } = await deploys(scene, vm)
      scene.ends(vm, toplevel)
      const hangs = `systemd.services.lab-hangs = { wantedBy = [ "multi-user.target" ]; serviceConfig = { Type = "oneshot"; ExecStart = "${program('sleep infinity')}"; }; };`
      await world.config.commit(module(vm, `{ lib, pkgs, ... }: { ${option} ${hangs} }\n`), 'Hangs')
      const reason = new RegExp(`^switch-to-configuration did not end within ${limit} s`)
      await upgrades(scene, vm, { outcome: 'switch-failed', reason, waits: limit })
      const left = await vm.root('systemctl is-active lab-hangs.service', { allow: 'any' })
      scene.check('what hung is stopped', 'inactive', left.stdout.trim())
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
      const option = `{ lib, ... }: { myModules.services.autoUpgrade.lockTimeout = lib.mkForce ${limit}; }\n`
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

/**
 * Pulls the cable of the uplink, and sees that the remote is out of reach.
 * @returns puts it back, and sees that the remote is there again
 */
export async function cutUplink(scene: Scene, vm: Machine): Promise<() => Promise<void>> {
  const cable = (up: boolean): Promise<unknown> =>
    vm.monitor((monitor) => monitor.execute('set_link', { name: 'uplink-nic', up }))
  const reaches = 'timeout 5 git ls-remote -q git://10.0.3.100/config.git >/dev/null 2>&1; echo $?'
  const fault = scene.fault('uplink cut', vm.host)
  await cable(false)
  const bitten = (await vm.root(reaches)).stdout.trim()
  fault.bit(bitten !== '0', `git ls-remote exits with ${bitten}`)
  return async () => {
    await cable(true)
    await vm.until('the remote to be back', 30, `[ "$(${reaches})" = 0 ]`)
    fault.healed(true, 'git ls-remote exits with 0')
  }
}

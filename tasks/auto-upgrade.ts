import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fromHome } from '../lib/lab-settings.ts'
import { setThird } from '../lib/scenario/dotfile-sync.ts'
import { answers } from '../lib/scenario/answers.ts'
import { cached } from '../lib/scenario/cached.ts'
import { lockedOutCases } from '../lib/scenario/locked-out.ts'
import type { Changes } from '../lib/scenario/remote.ts'
import { scenarioTask, type Case, type Family } from '../lib/scenario/scenario.ts'
import { full } from '../lib/scenario/full.ts'
import { interrupted } from '../lib/scenario/interrupted.ts'
import { powerCuts } from '../lib/scenario/power-cuts.ts'
import { ownRepository } from '../lib/scenario/own-repository.ts'
import { past } from '../lib/scenario/past.ts'
import { limits } from '../lib/scenario/limits.ts'
import { options } from '../lib/scenario/options.ts'
import { several } from '../lib/scenario/several.ts'
import { comes, rebuild } from '../lib/scenario/trial.ts'
import { unattended } from '../lib/scenario/unattended.ts'
import { refused } from '../lib/scenario/refused.ts'
import { reached } from '../lib/scenario/reached.ts'
import { unwell } from '../lib/scenario/unwell.ts'
import { doAsTold } from '../lib/scenario/told.ts'
import { cutUplink } from '../lib/scenario/uplink.ts'
import {
  cloneOf,
  deploysForGood,
  failingUnit,
  module,
  note,
  oneshot,
  program,
  seen,
  upgrades,
  withOptions,
} from '../lib/scenario/upgrade.ts'
import { hostModule, ownFiles } from '../lib/scenario/host-module.ts'
import { quote } from '../lib/quote.ts'
import { project } from '../lib/settings.ts'

const cases: Case[] = [
  {
    name: 'good-commit',
    title: 'a good commit is deployed, and the next run finds nothing to do',
    promise: 'deploy',
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const commit = await world.config.commit(note(vm, 'two'), 'Two')
      const { to, checks } = await upgrades(scene, vm, { outcome: 'upgraded', phase: 'done' })
      if (vm.subject.status) scene.check('status.json names the commit', commit, to?.commit)
      const held = checks.filter(({ result }) => result === 'ok').map(({ command }) => command)
      const said = await vm.ask(
        held.map((check) => `sh -c ${quote(check)} >&2 || echo ${quote(check)}`).join('\n'),
      )
      scene.check('each check reported as passed does pass', '', said)
      scene.check('the change of the commit runs', 'two', await seen(vm))
      await upgrades(scene, vm, { outcome: 'up-to-date' })
    },
  },
  ...refused,
  {
    name: 'late-failure',
    title: 'a service fails a second after its start: the upgrade notices that and rolls back',
    promise: 'rollback',
    run: async (scene) => {
      const { vm, world } = scene
      const late = failingUnit
        .replace('oneshot', 'simple')
        .replace(program('false'), "/bin/sh -c 'sleep 1; exit 1'")
      await world.config.commit(module(vm, late), 'Bad')
      const reason = /^lab-bad\.service has failed/
      await upgrades(scene, vm, { outcome: 'validation-failed', reason })
    },
  },
  {
    name: 'both-at-once',
    title: 'both hosts upgrade in the same second',
    promise: 'deploy',
    hosts: 2,
    ends: 'main',
    run: async (scene) => {
      const { vms, world } = scene
      await world.config.commit(Object.assign({}, ...vms.map((vm) => note(vm, 'two'))), 'Two')
      await Promise.all(vms.map((vm) => upgrades(scene, vm, { outcome: 'upgraded' })))
    },
  },
  {
    name: 'dotfiles-first',
    title:
      'the dotfiles are synchronized before anything else is fetched, even if the commit is bad',
    promise: 'dotfiles',
    run: async (scene) => {
      const { vm, world } = scene
      await world.dotfiles.commit({ dot_labrc: setThird }, 'Edit')
      await world.config.commit(module(vm, 'nonsense\n'), 'Bad')
      await upgrades(scene, vm, { outcome: 'build-failed' })
      scene.check('the dotfiles are applied', 'line three', await vm.askUser('sed -n 3p .labrc'))
    },
  },
  {
    name: 'hooks',
    title: 'pre-update hooks run before anything else, and a failing hook ends the upgrade',
    promise: 'checks',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      // the first hook has several lines and needs a program of the system
      const hook =
        'if true; then\\n  command -v nix-local-upgrade >/run/lab-hook &&\\n  test ! -e /run/lab-stop\\nfi'
      const first = await world.config.commit(
        withOptions(
          vm,
          `preUpdateHooks = [ "${hook}" "touch /run/lab-second" "if test -e /run/lab-daemon; then sleep 86398 >/dev/null 2>&1 & fi" ];
          schedule = lib.mkOverride 10 "*-02-29 03:07:00"; randomizedDelay = lib.mkOverride 10 "7min";`,
        ),
        'Hook',
      )
      const to = await deploysForGood(scene, vm)
      scene.check('the status names the commit with the hooks', first, to.commit)
      const units = await vm.ask(`unit=nix-local-upgrade
        systemctl show -p TimersCalendar -p RandomizedDelayUSec $unit.timer | sort
        systemctl show -p After -p Wants $unit.service | grep -c -w network-online.target`)
      const set = /^RandomizedDelayUSec=7min\n.*OnCalendar=\*-02-29 03:07:00 .*\n2$/
      scene.check('the upgrade has its schedule and waits for the network', set, units)
      await world.config.commit({ 'world/note': 'two' }, 'Two')
      await vm.root('touch /run/lab-stop')
      await upgrades(scene, vm, { outcome: 'failed', phase: 'hooks', reason: /lab-hook/ })
      const ran = await vm.ask('test -s /run/lab-hook && echo yes || echo no')
      scene.check('the first hook ran', 'yes', ran)
      const second = (): Promise<string> => vm.ask('test -e /run/lab-second && echo yes || echo no')
      scene.check('the hook after the failed one did not run', 'no', await second())
      await vm.root('rm /run/lab-stop')
      await upgrades(scene, vm, { outcome: 'up-to-date' })
      scene.check('the second hook runs once the first succeeds', 'yes', await second())
      const open = await vm.askUser(`stat -c %a /run/lab-second ${vm.subject.status}`)
      scene.check('users can read what a hook makes, and the status', '644\n644', open)
      // after a run by hand no unit ends the process that a hook left running
      await vm.root('touch /run/lab-daemon')
      const twice = 'for run in one two; do nix-local-upgrade 2>&1; done'
      const { stdout } = await vm.root(twice, { allow: 'any', timeout: 120 * vm.patience })
      await vm.root("pkill --full '^sleep 8639[8]$' || true")
      const held = stdout.match(/^nix-local-upgrade: up-to-date/gm)?.length
      scene.check('a process that a hook leaves delays no other run', 2, held)
    },
  },
  {
    name: 'timer',
    title:
      'the timer starts an upgrade at its scheduled time, and catches up on one that was missed',
    promise: 'deploy',
    limit: 240,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      const { unit, status } = vm.subject
      const said = await vm.ask(`systemctl start ${unit}.timer
        next=$(systemctl show --value -p NextElapseUSecRealtime ${unit}.timer)
        date -s "$(date -d "$next - 5 seconds")" >/dev/null
        echo "$next"`)
      scene.event(`the timer is set to ${said}`)
      const wanted = await scene.wanted(vm)
      const ended = `[ "$(readlink -f /run/current-system)" = ${wanted} ] && [ "$(systemctl show --value -p ActiveState ${unit}.service)" != activating ]`
      await comes(scene, vm, 'the timer has upgraded the host', 120, ended)
      if (status) scene.check('outcome', 'upgraded', (await vm.status())?.outcome ?? undefined)
      if (vm.subject.kind !== 'lab') return
      // as if the machine had been off for two days
      const run = `systemctl show --value -p InvocationID ${unit}.service`
      const before = await vm.ask(`systemctl stop ${unit}.timer; ${run}
        touch -d '2 days ago' /var/lib/systemd/timers/stamp-${unit}.timer; systemctl start ${unit}.timer`)
      const again = `[ "$(${run})" != ${before} ] && [ "$(systemctl show --value -p ActiveState ${unit}.service)" != activating ]`
      await comes(scene, vm, 'a missed upgrade is made up for', 60, again)
    },
  },
  {
    name: 'rebuild-overlap',
    title: 'a manual rebuild is running: the upgrade names its process and changes nothing',
    promise: 'lock',
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      const slow = `{ pkgs, ... }: { ${oneshot('lab-slow', 'sleep 30')} }`
      const { toplevel } = await rebuild(scene, vm, slow)
      // a lock this old would count as hung, but what counts is the age of the process that holds it
      await vm.root(
        `systemd-run --quiet --unit=lab-rebuild --remain-after-exit ${toplevel}/bin/switch-to-configuration switch
        until systemctl is-active --quiet lab-slow.service || [ "$(systemctl show --value -p ActiveState lab-slow.service)" = activating ]; do sleep 0.5; done
        touch -d '1 day ago' /run/nixos/switch-to-configuration.lock`,
        { timeout: 60 * vm.patience },
      )
      const reason = /^Another switch is at work: pid \d+, .*switch-to-configuration/
      await upgrades(scene, vm, { outcome: 'locked', reason })
      const state = 'systemctl show --value -p SubState lab-rebuild.service'
      await vm.until('the rebuild to end', 90, `[ "$(${state})" != running ]`)
      scene.check('the rebuild ends well', 'exited', await vm.ask(state))
      scene.ends(vm, toplevel)
      await vm.root('systemctl stop lab-rebuild.service')
    },
  },
  {
    name: 'wrong-key',
    title:
      'this host’s key cannot open the secrets: refused before the switch, and login still works',
    promise: 'checks',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const { seal } = await import('../lib/nix/secrets.ts')
      const key = '/var/lib/lab-key.txt'
      const made = `age-keygen -o ${key} 2>/dev/null && age-keygen -y ${key}; age-keygen | age-keygen -y`
      const [own, other] = (await vm.ask(made)).split('\n')
      // what nix/modules/nixos/secrets.nix does, with options that every kind of guest has
      const check = `{ lib, pkgs, ... }: { system.preSwitchChecks.labSecrets =
        "PATH=\${lib.makeBinPath [ pkgs.age pkgs.gnugrep ]}:/run/current-system/sw/bin:$PATH SECRETS_KEY=${key} sh \${../check-secrets.sh} \${../own.yaml} \${../secrets.yaml} \${../own.yaml}"; }\n`
      const agent = 'nix/agents/check-secrets.sh'
      // the remote's copy, which a control may cut; a flake that imports our modules has none
      const checker = (await world.config.read(agent)) ?? readFileSync(join(project, agent), 'utf8')
      const sealedTo = async (...recipients: string[]): Promise<Changes> => ({
        ...module(vm, check),
        'world/check-secrets.sh': checker,
        'world/secrets.yaml': await seal({ greeting: 'hello' }, recipients),
        'world/own.yaml': await seal({ greeting: 'hello' }, [own!]),
      })
      // this host's key is one of several recipients, and not the first
      await world.config.commit(await sealedTo(other!, own!), 'Secrets')
      const to = await deploysForGood(scene, vm)
      await world.config.commit(await sealedTo(other!), 'Secrets of another')
      await upgrades(scene, vm, { outcome: 'switch-failed' })
      const said = `journalctl --output=cat _SYSTEMD_INVOCATION_ID="$(systemctl show --value -p InvocationID nix-local-upgrade.service)"`
      const refusal = /check-secrets: Cannot open .*secrets\.yaml.* with the key in/
      scene.check('the secrets check names the key', refusal, (await vm.root(said)).stdout)
      vm.disconnect()
      const login = await vm.askUser('readlink -f /run/current-system')
      scene.check('a login finds the system before the upgrade', to.toplevel, login)
      const again = /is known to be bad \(switch-failed \S+Z switch-to-configuration exited with/
      await upgrades(scene, vm, { outcome: 'skipped-known-bad', reason: again })
    },
  },
  {
    name: 'untracked-file',
    title:
      'a commit imports a file that was never added: it is not deployed, and the file is named',
    promise: 'local',
    own: true,
    run: async (scene) => {
      const { vm, world } = scene
      await vm.user(`cd ${fromHome(world.paths.flake)} && echo new.nix >>.git/info/exclude
        echo '{ }' >world/hosts/new.nix && echo '{ imports = [ ./new.nix ]; }' >${hostModule(vm.host)} && jj commit -m 'Import it'`)
      const reason =
        /^`world\/hosts\/new\.nix` is not in the commit: the file is there, but not tracked/
      await upgrades(scene, vm, { outcome: 'build-failed', reason })
    },
  },
  {
    name: 'diverged',
    title: 'the trunk was rewritten: it is refused until its commit is accepted by name',
    promise: 'history',
    run: async (scene) => {
      const { vm, world } = scene
      const two = await world.config.commit(note(vm, 'two'), 'Two')
      const to = await deploysForGood(scene, vm)
      const parent = world.start.config
      await world.config.commit(note(vm, 'other'), 'Other', { parent })
      const rewritten = new RegExp(`^${world.branch} was rewritten: .* does not descend from`)
      const wanted = { outcome: 'diverged', phase: 'fetch', reason: rewritten }
      const { reason } = await upgrades(scene, vm, wanted)
      if (vm.subject.kind !== 'lab') return
      if (!vm.subject.lacks?.clone) {
        const known = `git -C ${fromHome(world.paths.flake)} rev-parse refs/remotes/origin/${world.branch}`
        scene.check('the clone knows the trunk before the rewrite', two, await vm.askUser(known))
      }
      // rewritten once more: the commit named before is no longer the remote's
      await world.config.commit(note(vm, 'another'), 'Another', { parent })
      const [, former] = /--accept (\w+)/.exec(reason ?? '') ?? []
      scene.must('the reason names the commit to accept', /^[0-9a-f]{40}$/, former)
      const other = await vm.root(`nix-local-upgrade --accept ${former} 2>&1`, {
        allow: 'any',
        timeout: 60 * vm.patience,
      })
      scene.check('accepting one commit deploys no other', to.toplevel, await vm.running())
      scene.check(
        'the upgrade asks for the other commit to be accepted',
        /diverged: .*--accept/,
        other.stdout,
      )
      await doAsTold(scene, vm, (await upgrades(scene, vm, wanted)).reason)
      scene.check('the rewritten trunk is deployed once accepted', 'another', await seen(vm))
      scene.ends(vm, 'main')
    },
  },
  {
    name: 'local-merges',
    title:
      'a commit of this host is rebased onto the remote, and both are deployed; a merge that its user has not finished is neither deployed nor touched',
    limit: 300,
    promise: 'local',
    own: true,
    ends: 'any',
    run: async (scene) => {
      const { vm, world } = scene
      // the trunk's bookmark points to another commit than the host's own
      const inClone = cloneOf(scene, vm)
      await inClone(
        `echo side >world/side && jj commit -m Side
        jj bookmark set ${world.branch} --revision @- && jj new ${world.branch}@origin
        echo '{ environment.etc."lab-local".text = "mine"; }' >${ownFiles}/all.nix && jj commit -m Mine`,
      )
      await world.config.commit(note(vm, 'two'), 'Two')
      await deploysForGood(scene, vm)
      scene.check('the remote’s change runs', 'two', await seen(vm))
      scene.check('the host’s own change runs', 'mine', await seen(vm, 'lab-local'))
      const described = (revisions: string): Promise<string> =>
        inClone(`jj log --no-graph -r '${revisions}' -T description`, { allow: 'any' })
      const own = await described(`${world.branch}@origin..@-`)
      scene.check('the host’s own commit is on the remote’s', 'Mine', own)
      scene.check(
        'the trunk’s bookmark is on the host’s own commit',
        'Mine',
        await described(world.branch),
      )
      // an unfinished merge is neither deployed nor taken apart
      await inClone(`jj new @- 'description(exact:"Side\\n")' && echo draft >world/draft`)
      const reason = /^The working copy is a merge with edits that are not described: /
      await upgrades(scene, vm, { outcome: 'failed', reason })
      const merge = "jj log --no-graph -r 'parents(@)' -T description | sort && cat world/draft"
      const found = (await inClone(merge)).replaceAll('\n', ' ')
      scene.check('the unfinished merge is unchanged', 'Mine Side draft', found)
      await inClone('jj describe -m Merged')
      const deployed = 'git log -1 --format=%s refs/nix-local-upgrade/candidate'
      await upgrades(scene, vm, { outcome: 'up-to-date', reason: /changes nothing of this host/ })
      scene.check('the finished merge is deployed', 'Merged', await inClone(deployed))
    },
  },
  {
    name: 'half-written',
    title: 'a half-written edit is not deployed, and is still there after the upgrade',
    promise: 'local',
    own: true,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const file = `${fromHome(world.paths.flake)}/flake.nix`
      // with this edit, the flake would not even parse
      await vm.user(`echo '{ half of a thought' >>${file}`)
      await world.config.commit(note(vm, 'two'), 'Two')
      await upgrades(scene, vm, { outcome: 'upgraded' })
      scene.check('the change of the commit runs', 'two', await seen(vm))
      scene.check(
        'the half-written edit is still there',
        '{ half of a thought',
        await vm.askUser(`tail -n 1 ${file}`),
      )
    },
  },
  {
    name: 'local-conflicts',
    title:
      'a commit of this host conflicts with the remote: it stays unchanged, and the file is named',
    promise: 'local',
    own: true,
    run: async (scene) => {
      const { vm, world } = scene
      const path = hostModule(vm.host)
      const inClone = cloneOf(scene, vm)
      const own = 'jj log --no-graph -r @- -T commit_id'
      await inClone(`echo '{ time.timeZone = "UTC"; }' >${path} && jj commit -m Mine`)
      const before = await inClone(own)
      await world.config.commit(note(vm, 'two'), 'Two')
      const reason = new RegExp(`^Conflict in ${path}`)
      await upgrades(scene, vm, { outcome: 'conflict', phase: 'rebase', reason })
      scene.check('the host’s own commit is unchanged', before, await inClone(own))
    },
  },
  {
    name: 'known-bad',
    title: 'a bad revision is not tried again until the remote moves',
    promise: 'memory',
    own: true,
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, 'nonsense\n'), 'Bad')
      await upgrades(scene, vm, { outcome: 'build-failed' })
      await upgrades(scene, vm, { outcome: 'skipped-known-bad', phase: 'fetch' })
      // the record is permanent: neither a skipped run nor another bad commit removes it
      if (!vm.subject.lacks?.clone) {
        const inClone = cloneOf(scene, vm)
        await inClone('echo own >world/own && jj commit -m Own')
        await upgrades(scene, vm, { outcome: 'build-failed' })
        // a rebase gives the commit another id each time
        await upgrades(scene, vm, { outcome: 'skipped-known-bad', phase: 'fetch' })
        await inClone(`jj new ${world.branch}@origin`)
      }
      await upgrades(scene, vm, { outcome: 'skipped-known-bad', phase: 'fetch' })
      await world.config.commit(note(vm, 'three'), 'Good')
      await upgrades(scene, vm, { outcome: 'upgraded' })
    },
  },
  {
    name: 'remote-gone',
    title: 'the remote cannot be reached: no failure, nothing changed, and the next run catches up',
    promise: 'offline',
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(note(vm, 'two'), 'Two')
      const heal = await cutUplink(scene, vm)
      await upgrades(scene, vm, { outcome: 'offline', phase: 'fetch' })
      scene.check('nothing was deployed', scene.start(vm), await vm.running())
      await heal()
      await upgrades(scene, vm, { outcome: 'upgraded' })
    },
  },
  ...full,
  ...several,
  ...past,
  ...ownRepository,
  ...unwell,
  ...limits,
  ...options,
  ...cached,
  ...answers,
  ...unattended,
  ...interrupted,
  ...powerCuts,
  ...lockedOutCases,
  ...reached,
]

export const family: Family = {
  name: 'auto-upgrade',
  describe: 'Push good and bad commits, take away what upgrades need, kill them in every phase',
  cases,
}

await scenarioTask(import.meta, family)

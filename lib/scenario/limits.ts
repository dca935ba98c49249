import { lineOf, readHome, setThird, syncByUnit } from './dotfile-sync.ts'
import type { Case, Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { rebuild } from './trial.ts'
import { silenceRemote } from './uplink.ts'
import {
  deploys,
  deploysForGood,
  module,
  note,
  noted,
  oneshot,
  optionsModule,
  program,
  seen,
  upgrades,
  withOptions,
  type Wanted,
} from './upgrade.ts'

/** While this file exists, the commands that check for it hang. */
const there = '/run/lab-hang'

/** Gets one line each time that the hanging check is started. */
const starts = '/run/lab-starts'

/** A command that never ends, with an argument by which its process is found. */
const forever = 'sleep 86399'

/** The same, but ignoring SIGTERM: for a shell, in a string of Nix. */
const deaf = `{ trap '' TERM; exec ${forever}; }`

/** Whether such a process is left; the pattern is written so that pgrep does not find itself. */
export const left = `pgrep --full '^(.*/)?sleep 8639[9]$' >/dev/null; case $? in 0) echo running ;; 1) echo ended ;; *) echo "not known: $?" ;; esac`

const stops = async (scene: Scene, vm: Machine): Promise<boolean> =>
  scene.check('the hung process has ended', 'ended', await vm.ask(left))

/** What hangs in an upgrade, either while `there` exists or because a commit brings it. */
const hanging: (Pick<Case, 'name' | 'title' | 'promise'> & {
  /** Seconds of the time limit, on KVM: long enough for a healthy run. */
  seconds: number
  /** The limit is not an option, and is the same on any machine. */
  fixed?: true
  options: (limit: number) => string
  brings?: string
  wanted: Pick<Wanted, 'outcome' | 'phase' | 'limit'>
  reason: (limit: number) => RegExp
})[] = [
  {
    name: 'hook-hangs',
    title: 'a hook never ends: it is stopped at its time limit, and nothing is deployed',
    promise: 'checks',
    seconds: 5,
    options: (limit) =>
      `hookTimeout = lib.mkForce ${limit}; preUpdateHooks = lib.mkForce [ "[ ! -e ${there} ] || ${deaf}" ];`,
    wanted: { outcome: 'failed', phase: 'hooks', limit: 30 },
    reason: (limit) => new RegExp(`^The hook .* did not end within ${limit} s`),
  },
  {
    name: 'build-hangs',
    title: 'a build never ends: it is stopped at its time limit, and nothing is deployed',
    promise: 'refuse',
    // the limit includes the evaluation
    seconds: 15,
    options: (limit) => `buildTimeout = lib.mkForce ${limit};`,
    brings: `environment.etc."lab-case".source = pkgs.runCommand "lab-hangs" { } "${program(forever)}";`,
    wanted: { outcome: 'build-failed', phase: 'build', limit: 30 },
    reason: (limit) => new RegExp(`^The build took longer than ${limit} s`),
  },
  {
    name: 'switch-hangs',
    title: 'a switch never ends: it is stopped at its time limit, and the upgrade rolls back',
    promise: 'rollback',
    // the rollback is a switch as well
    seconds: 15,
    options: (limit) => `switchTimeout = lib.mkForce ${limit};`,
    brings: oneshot('lab-hangs', forever),
    wanted: { outcome: 'switch-failed' },
    reason: (limit) => new RegExp(`^switch-to-configuration did not end within ${limit} s`),
  },
  {
    name: 'check-hangs',
    title: 'a check never ends: it is stopped at its time limit and counts as failed',
    promise: 'checks',
    seconds: 60,
    fixed: true,
    options: () =>
      `validationChecks = [ "test ! -e ${there} || { echo started >>${starts}; ${deaf}; }" ];`,
    wanted: { outcome: 'validation-failed' },
    reason: () => /^`test ! -e \/run\/lab-hang .*` failed/,
  },
]

/** Every time limit of the agents, tested with something that never ends. */
export const limits: Case[] = [
  {
    name: 'remote-silent',
    title:
      'the remote accepts connections and never answers: the fetch gives up after its time limit',
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
      'a remote never answers: the dotfile sync gives up after the limit that is set, and the commit is still deployed; so does the fetch of the configuration',
    promise: 'dotfiles',
    own: true,
    limit: 400,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const limit = Math.ceil(10 * vm.patience)
      const options = `autoUpgrade.fetchTimeout = lib.mkForce ${limit}; chezmoiSync.networkTimeout = lib.mkForce ${limit};`
      const push = (text: string): Promise<unknown> =>
        world.config.commit(
          module(vm, `{ lib, ... }: { myModules.services = { ${options} }; ${noted(text)} }\n`),
          text,
        )
      await push('one')
      await deploys(scene, vm)
      await push('two')
      await world.dotfiles.commit({ dot_labrc: setThird }, 'Edit')
      const speaks = await silenceRemote(scene, vm, 'dotfiles')
      await deploys(scene, vm, { waits: limit })
      scene.check(
        'the dotfile sync gave up after its limit',
        new RegExp(`^offline: .*No end within ${limit} s`),
        await vm.ask(saidLast),
      )
      await speaks()
      await push('three')
      const answers = await silenceRemote(scene, vm, 'config')
      const reason = new RegExp(`did not answer within ${limit} s`)
      await upgrades(scene, vm, { outcome: 'offline', reason, limit: 20, waits: limit })
      await answers()
      await deploys(scene, vm)
      const line = lineOf(await readHome(vm, '.labrc'), 3)
      scene.check('the dotfiles have caught up', 'line three', line)
    },
  },
  {
    name: 'script-hangs',
    title:
      'a script among the dotfiles never ends: it is stopped and reported, and the commit is still deployed',
    promise: 'dotfiles',
    own: true,
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      const limit = Math.ceil(10 * vm.patience)
      const room = 20_000
      // the sync must use the limits and the branch that the host's options set
      const other = { branch: 'other', parent: world.start.dotfiles }
      const option = `myModules.services.chezmoiSync = { applyTimeout = lib.mkForce ${limit}; keepLimit = lib.mkForce ${room}; branch = lib.mkForce "${other.branch}"; };`
      const host = (more = ''): string => `{ lib, ... }: { ${option} ${more} }\n`
      await world.config.commit(module(vm, host()), 'Limit')
      await deploys(scene, vm)
      await vm.root(`touch ${there}`)
      const script = `#!/bin/sh
[ ! -e ${there} ] || exec ${forever}
`
      const changes = { 'run_after_lab.sh': script, dot_labrc: setThird }
      const parent = await world.dotfiles.commit(changes, 'Script', other)
      await world.config.commit(module(vm, host(noted('two'))), 'Two')
      const reason = /; chezmoi-pre-update\.service failed/
      await deploysForGood(scene, vm, { reason, waits: limit })
      scene.check('the commit runs', 'two', await seen(vm))
      const said = await vm.ask(saidLast)
      scene.check(
        'the sync reports that it took too long',
        `failed: Cannot apply: no end within ${limit} s`,
        said,
      )
      await stops(scene, vm)
      await vm.root(`rm ${there}`)
      const { outcome } = (await syncByUnit(vm)).status
      scene.check('the next sync succeeds', /^(synced|up-to-date)$/, outcome ?? 'nothing')
      const line = lineOf(await readHome(vm, '.labrc'), 3)
      scene.check('the dotfiles are applied', 'line three', line)

      // the limit for files that are put aside holds as well
      await vm.user(`echo mine >.labown; truncate -s ${room} .labown`)
      const theirs = '#!/bin/sh\necho theirs\n'
      await world.dotfiles.commit({ modify_dot_labown: theirs }, 'Their own', { ...other, parent })
      const { kept } = (await syncByUnit(vm)).status
      const why = kept.find(({ file }) => file === '.labown')?.reason
      scene.check(
        'a file that is too big to put aside is named',
        new RegExp(`may hold only ${room} bytes$`),
        why,
      )
      const stays = (await vm.user('head -n 1 .labown; stat -c %s .labown')).stdout
      scene.check('a file that is too big to put aside is unchanged', `mine\n${room}\n`, stays)
    },
  },
  ...hanging.map(
    ({
      name,
      title,
      promise,
      seconds,
      fixed,
      options,
      brings = noted('hangs'),
      wanted,
      reason,
    }): Case => ({
      ...{ name, title, promise },
      own: true,
      limit: 400,
      run: async (scene) => {
        const { vm, world } = scene
        const limit = fixed ? seconds : Math.ceil(seconds * vm.patience)
        // an agent has the limits of its own generation, so they are deployed first
        await world.config.commit(withOptions(vm, options(limit)), 'May hang')
        const { toplevel } = await deploysForGood(scene, vm)
        await world.config.commit(withOptions(vm, options(limit), brings), 'Hangs')
        await vm.root(`touch ${there}`)
        await upgrades(scene, vm, { ...wanted, reason: reason(limit), waits: limit })
        scene.check('nothing of the commit runs', toplevel, await vm.running())
        // a check that failed at once would be retried, with the same reason
        if (fixed) {
          const { stdout } = await vm.root(`cat ${starts} || true`)
          const count = stdout.split('started').length - 1
          scene.check('the hung check was started once', '1 times', `${count} times`)
        }
        await stops(scene, vm)
      },
    }),
  ),
  {
    name: 'lock-hangs',
    title:
      'a manual rebuild never ends: upgrades give way to it at first, and fail once it counts as hung',
    promise: 'lock',
    own: true,
    limit: 400,
    run: async (scene) => {
      const { vm, world } = scene
      // long enough for an upgrade to reach the lock, as this limits the whole run as well
      const limit = Math.ceil(20 * vm.patience)
      const option = optionsModule(`lockTimeout = lib.mkForce ${limit};`)
      const { toplevel } = await rebuild(scene, vm, option)
      scene.ends(vm, toplevel)
      await vm.root(
        `systemd-run --quiet --wait ${toplevel}/bin/switch-to-configuration switch
        systemd-run --quiet --unit=lab-rebuild flock /run/nixos/switch-to-configuration.lock sleep infinity`,
        { timeout: 60 * vm.patience },
      )
      // if the upgrade itself hangs, systemd ends it
      const own = `systemctl show --value -p TimeoutStartUSec ${vm.subject.unit}.service`
      scene.check('systemd limits the time of the upgrade', /^(?!infinity)./, await vm.ask(own))
      await world.config.commit(note(vm, 'two'), 'Two')
      const who = 'Another switch is at work: pid \\d+, .*flock .*'
      await upgrades(scene, vm, { outcome: 'locked', reason: new RegExp(`^${who}`) })
      const age = '$(ps -o etimes= -p "$(systemctl show --value -p MainPID lab-rebuild.service)")'
      await vm.until('the rebuild to count as hung', 30, `[ "${age}" -ge ${limit} ]`)
      const hung = new RegExp(`^${who}counts as hung`)
      await upgrades(scene, vm, { outcome: 'failed', phase: 'lock', reason: hung })
      await vm.root('systemctl stop lab-rebuild.service')
      scene.check('nothing of the commit runs', toplevel, await vm.running())
      // the same for the upgrade's own lock: its file names a process that is gone, so the file's age counts
      const lock = '/run/nix-local-upgrade.lock'
      await vm.root(`systemd-run --quiet --unit=lab-other flock ${lock} sleep infinity
        until ! flock --nonblock ${lock} true; do sleep 0.1; done; touch -d '-${limit} seconds' ${lock}`)
      const unit = `${vm.subject.unit}.service`
      const said = await vm.ask(
        `systemctl start ${unit}; systemctl show --value -p Result ${unit}; systemctl stop lab-other.service`,
        { allow: 'any', timeout: 60 * vm.patience },
      )
      scene.check('an upgrade fails when an earlier one hangs', 'exit-code', said)
    },
  },
]

/** Shell command that prints outcome and reason of the last synchronization. */
const saidLast = 'jq -r \'.outcome + ": " + .reason\' /var/lib/chezmoi-sync/status.json'

import { fromHome } from '../lab-settings.ts'
import type { Case } from './family.ts'
import { failingUnit, module, oneshot, program, restartingUnit, upgrades } from './upgrade.ts'

/** It never reports that it is up. Another unit starts it, as a switch waits for units that it starts itself. */
const neverUp = (name: string): string =>
  `{ pkgs, ... }: {
    systemd.services.${name}.serviceConfig = { Type = "notify"; TimeoutStartSec = "infinity"; ExecStart = "${program('sleep infinity')}"; };
    ${oneshot('lab-starts', `true`, `ExecStartPre = "\${pkgs.systemd}/bin/systemctl start --no-block ${name}.service";`)}
  }\n`

/** It listens on an address that no host has (RFC 5737). */
const badSocket = (name: string): string =>
  `{ pkgs, ... }: {
    systemd.sockets.${name} = { wantedBy = [ "sockets.target" ]; socketConfig.ListenStream = "203.0.113.1:80"; };
    systemd.services.${name}.serviceConfig.ExecStart = "${program('sleep infinity')}";
  }\n`

/** Revisions that must be refused without any change to the host. */
const revisions: (Pick<Case, 'name' | 'title' | 'promise' | 'own'> & {
  module: string
  outcome: string
  reason: RegExp
})[] = [
  {
    name: 'syntax-error',
    title: 'a commit does not parse: it is not deployed, and the file and line are named',
    promise: 'refuse',
    module: '{ environment.etc."lab-case".text = "two" }\n',
    outcome: 'build-failed',
    reason: /^syntax error.* at world\/hosts\/[\w-]+\.nix:1:/,
  },
  {
    name: 'build-error',
    title:
      'a commit does not build, and its builder reports a network error: it counts as a failed build, not as offline',
    promise: 'refuse',
    module: `{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.runCommand "lab-bad" { } ''
      echo 'curl: (7) Failed to connect to 127.0.0.1 port 80: Connection refused' >&2; exit 1'';
    }\n`,
    outcome: 'build-failed',
    reason: /lab-bad|Cannot build/,
  },
  {
    name: 'builder-killed',
    title:
      'a builder is killed, as when memory runs out: the upgrade fails, but the commit is not remembered as bad',
    promise: 'refuse',
    own: true,
    module: `{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.runCommand "lab-killed" { } "kill -9 $$"; }\n`,
    outcome: 'failed',
    reason: /^A builder was killed/,
  },
  {
    name: 'builder-starved',
    title:
      'a compiler runs out of memory and says so in its log only: the upgrade fails, but the commit is not remembered as bad',
    promise: 'refuse',
    own: true,
    module: `{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.runCommand "lab-starved" { } "echo 'cc1plus: out of memory allocating 65536 bytes' >&2; exit 1"; }\n`,
    outcome: 'failed',
    reason: /^The build ran out of memory/,
  },
  {
    name: 'misspelt',
    title: 'a commit misspells a package: it is not deployed, and the likely name is suggested',
    promise: 'refuse',
    module: '{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.coreutls; }\n',
    outcome: 'build-failed',
    reason: /coreutls.* \(Did you mean .*coreutils/,
  },
  {
    name: 'validation-fails',
    title:
      'a check fails after the switch: the repository, the profile, the boot default and the running system go back',
    promise: 'checks',
    own: true,
    // overrides the lab's own setting
    module: '{ lib, ... }: { services.openssh.enable = lib.mkOverride 10 false; }\n',
    outcome: 'validation-failed',
    reason: /is-active sshd\.service/,
  },
  {
    name: 'unit-fails',
    title: 'a service fails after the switch: the upgrade rolls back',
    promise: 'rollback',
    module: failingUnit,
    outcome: 'validation-failed',
    reason: /^lab-bad\.service has failed/,
  },
  {
    name: 'socket-fails',
    title: 'a socket, rather than a service, fails after the switch: the upgrade rolls back',
    promise: 'rollback',
    module: badSocket('lab-bad'),
    outcome: 'validation-failed',
    reason: /^lab-bad\.socket has failed/,
  },
  {
    name: 'unit-restarts',
    title:
      'a service is restarted again and again and so never counts as failed: the upgrade rolls back',
    promise: 'rollback',
    module: restartingUnit('lab-bad', 'false', 5),
    outcome: 'validation-failed',
    reason: /^lab-bad\.service/,
  },
  {
    name: 'unit-waits',
    title:
      'a service fails at once and is restarted only minutes later: the upgrade does not wait for that, and rolls back',
    promise: 'rollback',
    module: restartingUnit('lab-bad', 'false', 300),
    outcome: 'validation-failed',
    reason: /^lab-bad\.service/,
  },
  {
    name: 'unit-comes-and-goes',
    title:
      'a service ends every few seconds and runs whenever it is checked: the upgrade rolls back',
    promise: 'rollback',
    module: restartingUnit('lab-bad', 'sleep 4', 0),
    outcome: 'validation-failed',
    reason: /^lab-bad\.service.*restarted [1-9]\d* times/,
  },
  {
    name: 'unit-never-up',
    title:
      'a service never reports that it is up, and the unit that started it did not wait: the upgrade rolls back',
    promise: 'rollback',
    module: neverUp('lab-bad'),
    outcome: 'validation-failed',
    reason: /^lab-bad\.service has not come up/,
  },
]

/** Pushes each of them, and checks that the host and its clone stay as they were. */
export const refused: Case[] = revisions.map(
  ({ module: text, outcome, reason, ...named }): Case => ({
    ...named,
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, text), 'Bad')
      await upgrades(scene, vm, { outcome, reason })
      if (vm.subject.kind !== 'lab') return
      const head = `git -C ${fromHome(world.paths.flake)} rev-parse ${world.branch}`
      scene.check(
        'the branch in the clone is unchanged',
        world.start.config,
        await vm.askUser(head),
      )
    },
  }),
)

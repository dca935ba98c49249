import { fromHome } from '../lab-settings.ts'
import type { Case } from './family.ts'
import { failingUnit, module, oneshot, program, restartingUnit, upgrades } from './upgrade.ts'

/** A switch waits for what it starts itself, so another unit starts this one. */
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

/** Revisions that must be refused, with nothing of the host changed. */
const revisions: (Pick<Case, 'name' | 'title' | 'promise' | 'own'> & {
  module: string
  outcome: string
  reason: RegExp
})[] = [
  {
    name: 'syntax-error',
    title: 'a commit that does not parse is not deployed, and its place is named',
    promise: 'refuse',
    module: '{ environment.etc."lab-case".text = "two" }\n',
    outcome: 'build-failed',
    reason: /^syntax error.* at world\/hosts\/[\w-]+\.nix:1:/,
  },
  {
    name: 'build-error',
    title:
      'a commit that does not build is not deployed, and what its builder says of a network is no excuse',
    promise: 'refuse',
    module: `{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.runCommand "lab-bad" { } ''
      echo 'curl: (7) Failed to connect to 127.0.0.1 port 80: Connection refused' >&2; exit 1'';
    }\n`,
    outcome: 'build-failed',
    reason: /lab-bad|Cannot build/,
  },
  {
    name: 'builder-killed',
    title: 'a builder is killed, as where memory is short: that is not held against the commit',
    promise: 'refuse',
    own: true,
    module: `{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.runCommand "lab-killed" { } "kill -9 $$"; }\n`,
    outcome: 'failed',
    reason: /^A builder was killed/,
  },
  {
    name: 'misspelt',
    title: 'a commit that misspells a package is not deployed, and what it may mean is named',
    promise: 'refuse',
    module: '{ pkgs, ... }: { environment.etc."lab-case".source = pkgs.coreutls; }\n',
    outcome: 'build-failed',
    reason: /coreutls.* \(Did you mean .*coreutils/,
  },
  {
    name: 'validation-fails',
    title: 'a check fails after the switch: repository, profile, boot default and system go back',
    promise: 'checks',
    own: true,
    // stronger than what the lab itself says of it
    module: '{ lib, ... }: { services.openssh.enable = lib.mkOverride 10 false; }\n',
    outcome: 'validation-failed',
    reason: /is-active sshd\.service/,
  },
  {
    name: 'unit-fails',
    title: 'a unit fails after the switch: all goes back',
    promise: 'rollback',
    module: failingUnit,
    outcome: 'validation-failed',
    reason: /^lab-bad\.service has failed/,
  },
  {
    name: 'socket-fails',
    title: 'what fails after the switch is no service, but a socket: all goes back',
    promise: 'rollback',
    module: badSocket('lab-bad'),
    outcome: 'validation-failed',
    reason: /^lab-bad\.socket has failed/,
  },
  {
    name: 'unit-restarts',
    title: 'a unit that is restarted for ever is never quite failed, and all goes back',
    promise: 'rollback',
    module: restartingUnit('lab-bad', 'false', 5),
    outcome: 'validation-failed',
    reason: /^lab-bad\.service/,
  },
  {
    name: 'unit-waits',
    title:
      'a unit falls over at once and is to start again in minutes: nobody waits for that, and all goes back',
    promise: 'rollback',
    module: restartingUnit('lab-bad', 'false', 300),
    outcome: 'validation-failed',
    reason: /^lab-bad\.service/,
  },
  {
    name: 'unit-comes-and-goes',
    title: 'a service ends every few seconds and runs whenever it is looked at, and all goes back',
    promise: 'rollback',
    module: restartingUnit('lab-bad', 'sleep 4', 0),
    outcome: 'validation-failed',
    reason: /^lab-bad\.service.*restarted [1-9]\d* times/,
  },
  {
    name: 'unit-never-up',
    title:
      'a service is to say when it is up and never does, and whoever started it has not waited: all goes back',
    promise: 'rollback',
    module: neverUp('lab-bad'),
    outcome: 'validation-failed',
    reason: /^lab-bad\.service has not come up/,
  },
]

/** Each of them is pushed, and seen to leave the host and its clone as they were. */
export const refused: Case[] = revisions.map(
  ({ module: text, outcome, reason, ...named }): Case => ({
    ...named,
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, text), 'Bad')
      await upgrades(scene, vm, { outcome, reason })
      if (vm.subject.kind !== 'lab') return
      const head = `git -C ${fromHome(world.paths.flake)} rev-parse ${world.branch}`
      scene.check('the repository is as it was', world.start.config, await vm.askUser(head))
    },
  }),
)

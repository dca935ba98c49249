import { refused } from './golden-state.ts'
import { unitsByHand } from './host-module.ts'
import type { Case, Scene } from './scenario.ts'
import { booted, comesBack, validated } from './trial.ts'
import { module, note, unreachedUpgrade, upgrades } from './upgrade.ts'

/** A host that nobody can log in to any more: sshd runs, but incoming packets to its port are dropped. */
export const lockedOut = `{ pkgs, ... }: {
  systemd.services.lab-firewall = {
    wantedBy = [ "multi-user.target" ];
    after = [ "sshd.service" "lab-network@mgmt.service" ];
    before = [ "golden-boot-validation.service" ];
    path = [ pkgs.iproute2 ];
    script = ''
      tc qdisc add dev mgmt clsact
      tc filter add dev mgmt ingress protocol ip u32 match ip protocol 6 0xff match ip dport 22 0xffff action drop
    '';
    preStop = "tc qdisc del dev mgmt clsact";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
    };
  };
}
`
const reason = /^this host cannot be reached: sshd does not answer at \S+, port 22, over mgmt/

/** The next upgrade leaves the commit alone; if it did not, SSH would be shut again. */
async function staysRefused({ vm, check }: Scene): Promise<void> {
  const { status } = await unreachedUpgrade(vm)
  check('the next upgrade skips the commit', 'skipped-known-bad', status?.outcome ?? undefined)
}

/**
 * A commit that closes SSH is found by the upgrade itself or, if the power fails before its checks, by the boot
 * validation. A good boot after such a power cut becomes golden only once the skipped checks have passed.
 */
export const lockedOutCases: Case[] = [
  {
    name: 'locks-out',
    title:
      'a commit drops SSH while sshd runs: the upgrade rolls back before anybody is locked out for good',
    promise: 'reach',
    limit: 300,
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, lockedOut), 'Drop SSH')
      const { status } = await unreachedUpgrade(vm)
      if (vm.subject.status) {
        scene.check('outcome', 'validation-failed', status?.outcome ?? undefined)
        scene.check('the reason says that SSH is closed', reason, status?.reason)
      }
      const said = await vm.askUser('readlink -f /run/current-system')
      scene.check('a login finds the system before the upgrade', scene.start(vm), said)
      // the system before can be reached, so the commit was to blame
      if (vm.subject.kind === 'lab') await staysRefused(scene)
    },
  },
  {
    name: 'locks-out-with-power-cut',
    title:
      'a commit drops SSH and the power fails before the checks: its boot does not become golden',
    promise: 'fallback',
    own: true,
    limit: 400,
    ends: 'golden',
    run: async (scene) => {
      const { vm, world } = scene
      await world.config.commit(module(vm, lockedOut), 'Drop SSH')
      const before = await vm.bootId()
      await vm.holdUpgradeAt('validate', { limit: 90 })
      const { stdout } = await vm.agent('readlink -f /run/current-system')
      await vm.cutPower()
      await vm.powerOn()
      const seconds = await vm.awaitBoot(before, { limit: 200, until: booted(scene.start(vm)) })
      await comesBack(scene, vm, stdout.trim(), reason, seconds)
      await vm.releaseUpgrade()
      await staysRefused(scene)
    },
  },
  {
    name: 'power-cut-before-checks',
    title:
      'the power fails before the checks of an upgrade: its boot becomes golden only after them',
    promise: 'checks',
    own: true,
    needs: ['golden'],
    limit: 400,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      // units that have failed for weeks are not the commit's fault
      const failing = ['lab-old-one.service', 'lab-old-two.service']
      await vm.root(
        `mkdir -p ${unitsByHand}/multi-user.target.wants && cd ${unitsByHand}
        for unit in ${failing.join(' ')}; do
          printf '[Service]\\nType=oneshot\\nExecStart=/nonexistent\\n' >$unit
          ln -s ../$unit multi-user.target.wants/
        done
        systemctl daemon-reload; systemctl start ${failing.join(' ')} || true; sync`,
      )
      await world.config.commit(note(vm, 'two'), 'Two')
      const before = await vm.bootId()
      await vm.holdUpgradeAt('validate', { limit: 90 })
      await vm.cutPower()
      await vm.powerOn()
      await vm.awaitBoot(before, { limit: 120 })
      await vm.until('the boot to be validated', 90, validated)
      const stillFailed = `systemctl is-failed ${failing.join(' ')} || true`
      scene.must('both old units have failed again', 'failed\nfailed', await vm.ask(stillFailed))
      const golden = (): Promise<string> =>
        vm.ask('readlink -f /nix/var/nix/gcroots/golden-generation')
      scene.check('the commit is not golden before its checks', scene.start(vm), await golden())
      // what the timer does when the trial's time is over, even if the upgrade is not done
      const deadline = 'systemctl start golden-trial-deadline.service'
      const jobs = `${deadline} && echo asked; systemctl list-jobs --no-legend reboot.target`
      const said = await vm.ask(jobs, { allow: 'any' })
      scene.must('the deadline leaves an unchecked boot alone', 'asked', said)
      const first = /^1 .*let the upgrade end first/s
      await refused(scene, 'a pin by hand before the checks', first, 'pin-golden')
      const { to } = await upgrades(scene, vm, { outcome: 'upgraded' })
      scene.check('the commit is golden after its checks', to!.toplevel, await golden())
      await vm.root(`cd ${unitsByHand} && rm ${failing.join(' ')} multi-user.target.wants/lab-old-*
        systemctl daemon-reload; systemctl reset-failed`)
    },
  },
]

import type { TrialCase } from './family.ts'
import { ofGuest } from './host-module.ts'
import { armed, early, failsTrial, notUp } from './trial.ts'
import { program, restarting } from './upgrade.ts'

/** Cases in which the trial boot fails and golden boots after it. */
const broken: { name: string; title: string; module: string; reason?: RegExp; limit?: number }[] = [
  {
    name: 'panic',
    title: 'the kernel panics while systemd starts: the host falls back to golden by itself',
    module: early('echo c >/proc/sysrq-trigger'),
  },
  {
    name: 'bad-initrd',
    title: 'the first stage (initrd) is garbage: the host falls back to golden by itself',
    module: `{ ${ofGuest('brokenFirstStage')} }`,
  },
  {
    name: 'unloadable-kernel',
    title:
      'the boot loader cannot load the kernel: the host resets instead of waiting in the firmware',
    module: `{ ${ofGuest('unloadableKernel')} }`,
  },
  {
    name: 'missing-init',
    title: 'the init program does not exist: the host falls back to golden by itself',
    module: '{ lib, ... }: { boot.kernelParams = lib.mkAfter [ "init=/nonexistent" ]; }',
  },
  {
    name: 'hang',
    title: 'systemd crashes and the host hangs: the watchdog resets it',
    module: early('kill -SEGV 1'),
    limit: 300,
  },
  {
    name: 'early-hang',
    title:
      'the boot hangs before the system has started: the watchdog, armed by the first stage, resets it',
    module: `{ ${ofGuest('hangsEarly')} }`,
    limit: 300,
  },
  {
    name: 'unreachable',
    title:
      'the network is down while sshd runs: nobody could log in, so the host goes back to golden',
    // with no services to wait for, which is the default of a host
    module: `{ lib, ... }: { ${ofGuest('networkDown')} myModules.system.boot.goldenGeneration.validateServices = lib.mkForce [ ]; }`,
    reason: /^this host cannot be reached: no address on mgmt/,
    limit: 160,
  },
  {
    name: 'mute-systemd',
    title: 'systemd does not answer: the boot counts as bad, and the host is reset without systemd',
    module: `{ lib, ... }: { myModules.system.boot.goldenGeneration.validationTimeout = lib.mkForce 10;
      systemd.services.lab-mute = { before = [ "golden-boot-validation.service" ]; wantedBy = [ "multi-user.target" ];
        serviceConfig = { Type = "oneshot"; ExecStart = "/bin/sh -c 'rm -f /run/systemd/private /run/dbus/system_bus_socket'"; }; }; }`,
    reason: /^systemd says nothing of \d+ of \d+ units$/,
  },
  {
    name: 'stuck',
    title: 'a unit waits for ever while systemd feeds the watchdog: the deadline ends the trial',
    module: `{ lib, pkgs, ... }: { myModules.system.boot.goldenGeneration.trialTimeout = lib.mkForce 60;
      systemd.services.lab-stuck = { before = [ "golden-boot-validation.service" ]; wantedBy = [ "multi-user.target" ];
        serviceConfig = { Type = "oneshot"; TimeoutStartSec = "infinity"; ExecStart = "${program('sleep infinity')}"; }; }; }`,
    reason: /^it was not validated within 60 s$/,
    limit: 300,
  },
  {
    name: 'stuck-early',
    title:
      'a unit waits for ever early in the boot, before others start: the deadline still ends the trial',
    module: `{ lib, pkgs, ... }: { myModules.system.boot.goldenGeneration.trialTimeout = lib.mkForce 60;
      systemd.services.lab-stuck = { before = [ "sysinit.target" ]; wantedBy = [ "sysinit.target" ]; unitConfig.DefaultDependencies = false;
        serviceConfig = { Type = "oneshot"; TimeoutStartSec = "infinity"; ExecStart = "${program('sleep infinity')}"; }; }; }`,
    reason: /^it was not validated within 60 s$/,
    limit: 300,
  },
  {
    name: 'emergency',
    title:
      'local file systems cannot be mounted, /boot included: the boot ends in emergency mode, and the host falls back to golden',
    module: `{ systemd.services.lab-break = { requiredBy = [ "local-fs.target" ]; before = [ "local-fs.target" ]; after = [ "boot.mount" ];
      unitConfig = { DefaultDependencies = false; OnFailure = "emergency.target"; OnFailureJobMode = "replace-irreversibly"; };
      path = [ "/run/current-system/sw" ]; serviceConfig.Type = "oneshot"; script = "umount /boot; exit 1"; }; }`,
    reason: /^it ended in emergency mode$/,
  },
  {
    name: 'slow-validation',
    title:
      'a service takes longer to start than a trial may last: the deadline does not wait for the validation',
    module: `{ lib, pkgs, ... }: { ${validated('lab-slow', 200)} ${restarting('lab-slow', 'false', 100)}
      myModules.system.boot.goldenGeneration.trialTimeout = lib.mkForce 60; }`,
    reason: /^it was not validated within 60 s$/,
    limit: 300,
  },
  {
    name: 'dead-service',
    title: 'a service is dead after the boot: the validation sends the host back to golden',
    module: `{ lib, pkgs, ... }: { systemd.services.sshd.serviceConfig = { ExecStart = lib.mkForce "${program('false')}"; Restart = lib.mkForce "no"; }; }`,
    reason: /^sshd.service is failed$/,
    limit: 120,
  },
  {
    name: 'missing-service',
    title:
      'a service that a good boot needs no longer exists: the validation sends the host back to golden',
    module: `{ lib, pkgs, ... }: { ${validated('lab-gone')} }`,
    reason: /^lab-gone\.service does not exist$/,
    limit: 120,
  },
  {
    name: 'restarting-service',
    title:
      'a service starts and crashes again and again: the validation waits long enough to see it',
    module: `{ lib, pkgs, ... }: { ${validated('lab-flaky')} ${restarting('lab-flaky', 'sleep 4', 0)} }`,
    reason: /^(a unit was restarted|lab-flaky\.service is activating)/,
    limit: 160,
  },
  {
    name: 'activating-service',
    title: 'a service is still starting when its time is up: that does not count as active',
    module: `{ lib, pkgs, ... }: { ${validated('lab-slow')} ${restarting('lab-slow', 'false', 100)} }`,
    reason: /^lab-slow\.service is activating/,
    limit: 160,
  },
]

/**
 * Settings by which a boot is good once this service is active; for a module that has `lib`.
 * @param timeout seconds that the service has to become active
 */
function validated(service: string, timeout = 15): string {
  return `myModules.system.boot.goldenGeneration = { validateServices = [ "${service}.service" ]; validationTimeout = lib.mkForce ${timeout}; };`
}

/** After each of them golden boots by itself. */
export const brokenTrials: TrialCase[] = broken.map(
  ({ name, title, module, limit = 240, reason = notUp }) => ({
    name,
    title,
    // its module sets options of the lab's own golden generation
    ...(module.includes('goldenGeneration') ? { own: true } : {}),
    limit,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const trial = await armed(scene, vm, module)
      await failsTrial(scene, vm, trial, reason, limit / 2)
    },
  }),
)

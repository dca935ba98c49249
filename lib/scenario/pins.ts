import type { Scene, TrialCase } from './family.ts'
import { variables } from './golden-state.ts'
import { ofGuest, unitsByHand } from './host-module.ts'
import {
  armed,
  booted,
  boots,
  bootStatus,
  comes,
  failedTrials,
  harmless,
  makesDefault,
  rebuild,
  rebooted,
  staysDown,
  validated,
  becomesGolden,
} from './trial.ts'
import { lockedOut } from './locked-out.ts'
import { told } from './told.ts'
import { noted, seen } from './upgrade.ts'

/** How a generation becomes golden: by validation, by hand, or for the first time. */
export const pins: TrialCase[] = [
  {
    name: 'reached-late',
    title:
      'a service comes up late, after the clock was set, and the host is reachable only half a minute after its boot: the validation waits for both, and the boot becomes golden',
    own: true,
    limit: 300,
    ends: 'any',
    run: async (scene) => {
      const { vm } = scene
      const opens = `systemd.services.lab-firewall-opens = {
        wantedBy = [ "multi-user.target" ];
        after = [ "lab-firewall.service" ];
        path = [ "/run/current-system/sw" ];
        script = "sleep 30; systemctl stop lab-firewall.service";
      };`
      // lab-late fails until the clock was set, which lab-clock does while the validation waits
      const late = `systemd.services.lab-clock = {
        wantedBy = [ "multi-user.target" ];
        path = [ "/run/current-system/sw" ];
        script = "until systemctl show -p ActiveState golden-boot-validation.service | grep -q =activating; do sleep 0.2; done; sleep 2; date --set 1hour; sleep 2; touch /run/lab-clock";
      };
      systemd.services.lab-late = {
        wantedBy = [ "multi-user.target" ];
        path = [ "/run/current-system/sw" ];
        unitConfig.StartLimitIntervalSec = 0;
        serviceConfig = { Restart = "on-failure"; RestartSec = 1; };
        script = "test -e /run/lab-clock || exit 1; exec sleep infinity";
      };
      myModules.system.boot.goldenGeneration.validateServices = [ "lab-late.service" ];`
      // services have less time for that than reachability, for which cases force a short time: hence the priority 40
      const times = `myModules.system.boot.goldenGeneration.validationTimeout = lib.mkForce 15;
        myModules.system.reachability.timeout = lib.mkOverride 40 60;`
      const module = `{ lib, ... }: { imports = [ (${lockedOut}) ]; ${times} ${opens} ${late} }`
      const trial = await armed(scene, vm, module)
      scene.ends(vm, trial)
      await boots(scene, vm, 'the trial boots', trial)
      await becomesGolden(scene, vm, trial)
    },
  },
  {
    name: 'golden-unwell',
    title:
      'a service of golden fails: golden says so, stays up and does not reboot; a trial armed in that boot and never started does not count as failed',
    own: true,
    limit: 300,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const before = await bootsUnwell(scene)
      const ask =
        'cat /proc/sys/kernel/random/boot_id; systemctl is-failed golden-boot-validation.service; journalctl --no-pager -o cat -b -u golden-boot-validation.service'
      const { stdout } = await vm.agent(ask, { limit: 30, allow: 'any' })
      scene.check('the host has rebooted', false, stdout.startsWith(before))
      scene.check(
        'the journal says that golden is not well',
        /the golden generation itself is not well; it keeps running/,
        stdout,
      )
      // with this target active, the boot loader's counters would count the boot as good
      const complete =
        'timeout 60 systemctl start boot-complete.target 2>&1; systemctl is-active boot-complete.target'
      const said = (await vm.agent(complete, { limit: 90, allow: 'any' })).stdout.trim()
      scene.check('boot-complete.target is not reached', /(^|\n)(inactive|failed)$/, said)
      await vm.agent(`${wellAgain}; systemctl start sshd`, { limit: 90 })
      vm.disconnect()
      await vm.until('SSH to answer', 30, booted(scene.start(vm)))
      // a trial that was armed in a bad boot can be cancelled, too
      await armed(scene, vm, harmless)
      await vm.root("bootctl set-oneshot ''")
      await boots(scene, vm, 'golden boots instead of the trial', scene.start(vm))
      await comes(scene, vm, 'golden is validated', 90, validated)
      const { lastFailed } = await bootStatus(scene, vm)
      scene.check('a trial that never started does not count as failed', null, lastFailed)
      await told(scene, vm, 'rollback-to-golden')
    },
  },
  {
    name: 'by-hand',
    title:
      'golden is brought back by hand: it runs at once and boots next, and nothing is on trial any more',
    own: true,
    limit: 400,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const trial = await armed(scene, vm, harmless)
      await vm.root(`systemd-run --quiet --wait ${trial}/bin/switch-to-configuration test`, {
        timeout: 60 * vm.patience,
      })
      scene.check('the trial runs', trial, await vm.running())
      // the first rollback stops halfway, the second finishes it once /boot can be written
      const half = 'mount -o remount,ro /boot && ! rollback-to-golden && mount -o remount,rw /boot'
      await told(scene, vm, half)
      const said = await told(scene, vm, 'rollback-to-golden')
      scene.check('golden runs', scene.start(vm), await vm.running())
      scene.check(
        'rollback-to-golden says that golden runs',
        `running: ${scene.start(vm)}`,
        said.split('\n').at(-1),
      )
      scene.check('the trial’s own file is gone from /etc', 'none', await seen(vm, 'lab-trial'))
      const { profile, trial: left } = await bootStatus(scene, vm)
      scene.must('golden is the system profile', scene.start(vm), profile)
      scene.check('nothing is on trial after the rollback', null, left)
      // on trial once more, which the reboot must skip; golden's kernel on the ESP is damaged until then
      const loads = await vm.ask("sed -n 's,^linux ,/boot,p' /boot/loader/entries/golden-*.conf")
      await vm.root(
        `printf x | dd of=${loads} bs=1 seek=5000 conv=notrunc status=none; sync -f /boot`,
      )
      await told(scene, vm, makesDefault(trial))
      const again = await told(scene, vm, 'show-golden')
      scene.check('golden’s boot files are complete again', /^golden: (?!.*PROBLEM)/s, again)
      const before = await vm.bootId()
      // its answer may get lost as sshd stops
      await vm.root('rollback-to-golden --reboot', { allow: 'any' })
      const wait = { limit: 60, until: booted(scene.start(vm)) }
      await rebooted(scene, vm, 'golden boots', () => vm.awaitBoot(before, wait))
      scene.check('nothing is on trial any more', null, (await bootStatus(scene, vm))['trial'])
    },
  },
  {
    name: 'pinned-by-hand',
    title:
      'automatic pinning is off: a good boot does not become golden and can be rolled back; once it is pinned by hand, it is golden',
    own: true,
    limit: 400,
    ends: 'any',
    run: async (scene) => {
      const { vm } = scene
      const golden = scene.start(vm)
      const bootsWell = async (): Promise<void> => {
        await boots(scene, vm, 'the trial boots', trial)
        await comes(scene, vm, 'the trial is validated', 90, validated)
      }
      const trial = await armed(
        scene,
        vm,
        `{ lib, ... }: { boot.kernelParams = [ "lab.trial" ];
          myModules.system.boot.goldenGeneration.autoPinAfterBoot = lib.mkForce false; }`,
      )
      await told(scene, vm, 'pin-golden')
      const pinned = await bootStatus(scene, vm)
      scene.check('pinning the running generation leaves the trial alone', trial, pinned['trial'])
      await bootsWell()
      const first = await bootStatus(scene, vm)
      scene.check('golden is unchanged', golden, first['golden'])
      scene.check('the trial that has booted stays on trial', trial, first['trial'])
      // before systemd starts, the initrd may have waited for a passphrase
      const timer = 'systemctl show --value -p TimersMonotonic golden-trial-deadline.timer'
      const begins = /^\{ OnStartupUSec=/
      scene.check(
        'the trial’s deadline counts from systemd’s start',
        begins,
        (await vm.root(timer)).stdout,
      )
      const said = await told(scene, vm, 'rollback-to-golden')
      scene.check('golden runs', golden, await vm.running())
      scene.check(
        'rollback-to-golden says what needs a reboot',
        /^its kernel-params takes effect only after a reboot$/m,
        said,
      )
      const left = await bootStatus(scene, vm)
      scene.check('nothing is on trial', null, left['trial'])
      await told(scene, vm, makesDefault(trial))
      await bootsWell()
      // a generation that is good now may have failed before
      const other = `/nix/store/${'0'.repeat(32)}-other`
      const failed = '%s 2026-01-01T00:00:00Z it did not come up\\n'
      await vm.root(`printf '${failed}' ${trial} ${other} >>${failedTrials}`)
      await rebuildsAmidPin(scene)
      const known = await vm.ask(`cut -d ' ' -f 1 ${failedTrials} || true`)
      scene.check('other failed trials stay recorded', other, known)
      scene.ends(vm, trial)
      const last = await bootStatus(scene, vm)
      scene.check(
        'the pinned generation is golden',
        `${trial} null`,
        `${last['golden']} ${last['trial']}`,
      )
    },
  },
  {
    name: 'no-room-for-golden',
    title:
      '/boot has no room for the copies of a new golden generation: golden stays what it was, and complete, until there is room',
    own: true,
    limit: 300,
    ends: 'any',
    run: async (scene) => {
      const { vm } = scene
      const golden = scene.start(vm)
      const trial = await armed(
        scene,
        vm,
        `{ ${ofGuest('anotherFirstStage')} ${noted('no room')} }`,
      )
      const fault = scene.fault('/boot full', vm.host)
      const free = 'df --output=avail -B1K /boot | tail -n 1'
      const fill = `fallocate --length "$(($(${free}) - 1024))K" /boot/lab-fill; ${free}`
      // where df fails, Number('') would be 0, as if /boot were full
      const left = Number.parseInt(await vm.ask(fill))
      fault.bit(left < 2048, `${left} KiB are left`)
      await boots(scene, vm, 'the trial boots', trial)
      await comes(
        scene,
        vm,
        'the trial’s validation has ended',
        90,
        // waiting until it is not activating would end before it has begun
        'systemctl show --value -p ActiveState golden-boot-validation | grep -qxE "active|failed"',
      )
      const { golden: now } = await bootStatus(scene, vm)
      scene.check('golden is unchanged', golden, now)
      scene.check(
        'golden’s files are complete',
        /^golden: (?!.*PROBLEM)/s,
        await told(scene, vm, 'show-golden'),
      )
      fault.healed(Number(await vm.ask(`rm /boot/lab-fill; ${free}`)) > 2048, 'it is empty')
      scene.ends(vm, trial)
      await told(scene, vm, 'pin-golden')
      const { golden: last } = await bootStatus(scene, vm)
      scene.check('the trial becomes golden once there is room', trial, last)
    },
  },
  {
    name: 'power-cut-as-pinned',
    title:
      'the power fails the moment a good boot has become golden: all its files are on the disk, and golden’s own entry boots next',
    own: true,
    limit: 400,
    ends: 'any',
    run: async (scene) => {
      const { vm } = scene
      // with files that the former golden does not have
      const trial = await armed(
        scene,
        vm,
        `{ lib, ... }: { ${ofGuest('anotherFirstStage')} ${noted('pinned')}
          myModules.system.boot.goldenGeneration.watchdogTimeout = lib.mkForce 0; }`,
      )
      await boots(scene, vm, 'the trial boots', trial)
      const golden = 'readlink -f /nix/var/nix/gcroots/golden-generation'
      await vm.root(`until [ "$(${golden})" = ${trial} ]; do :; done`, {
        timeout: 120 * vm.patience,
      })
      const before = await vm.bootId()
      await vm.cutPower()
      await vm.powerOn()
      await vm.awaitBoot(before, { limit: 120, until: booted(trial) })
      await comes(scene, vm, 'the boot is validated', 90, validated)
      const selected = await vm.ask(
        `tr -cd '[:print:]' <$(echo ${variables}/LoaderEntrySelected-*)`,
      )
      scene.check('golden’s own entry has booted', /golden-\S+\.conf$/i, selected)
      const said = await told(scene, vm, 'journalctl -b -o cat -u golden-boot-validation.service')
      const panic = await vm.ask('cat /proc/sys/kernel/panic')
      scene.check('a panic reboots the host even without a watchdog', /^[1-9]/, panic)
      scene.check('no file of golden had to be repaired', false, /are made anew/.test(said))
      scene.check(
        'golden’s files are complete',
        /^golden: (?!.*PROBLEM)/s,
        await told(scene, vm, 'show-golden'),
      )
      scene.ends(vm, trial)
    },
  },
  {
    name: 'turned-off',
    title:
      'the golden generation is turned off: the boot loader chooses by itself again, and no files of golden are left',
    own: true,
    limit: 300,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const off =
        '{ lib, ... }: { myModules.system.boot.goldenGeneration.enable = lib.mkForce false; }'
      const { code } = await rebuild(scene, vm, off)
      scene.must('the rebuild boots next', 0, code)
      const { default: chosen, golden, trial } = await bootStatus(scene, vm)
      scene.check(
        'the boot loader chooses by itself',
        'null null null',
        `${chosen} ${golden} ${trial}`,
      )
      const left =
        'ls -d /nix/var/nix/gcroots/golden-generation /boot/EFI/golden /boot/loader/entries/golden-* 2>/dev/null'
      scene.check('no files of golden are left', '', await vm.ask(left, { allow: 'any' }))
      await vm.root(makesDefault(scene.start(vm)), { timeout: 60 * vm.patience })
      await boots(scene, vm, 'the former generation boots again', scene.start(vm))
      await becomesGolden(scene, vm, scene.start(vm))
    },
  },
  {
    name: 'first-golden',
    title:
      'nothing is golden yet: a boot that fails its validation does not become golden, and the next good one does',
    own: true,
    limit: 400,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const golden =
        'cd /nix/var/nix/gcroots; [ -e golden-generation ] && readlink -f golden-generation || echo none'
      await armed(scene, vm, harmless)
      await told(scene, vm, 'unpin-golden')
      const { trial, oneshot } = await bootStatus(scene, vm)
      scene.check('nothing is on trial without golden', null, trial)
      scene.check('no one-shot entry is left without golden', null, oneshot)
      const start = scene.start(vm)
      await vm.root(makesDefault(start), { timeout: 60 * vm.patience })
      await bootsUnwell(scene)
      const ask = `${golden}; cat /proc/sys/kernel/random/boot_id`
      const [found, unwell = ''] = (await vm.agent(ask, { limit: 30 })).stdout.split('\n')
      scene.check('a boot that fails its validation is not golden', 'none', found)
      // after a delay, so that the guest agent can answer before it stops
      const reboot = '(sleep 2; systemctl reboot) </dev/null >/dev/null 2>&1 &'
      await vm.agent(`${wellAgain}; ${reboot}`, { limit: 30 })
      const wait = { limit: 60, until: booted(scene.start(vm)) }
      await rebooted(scene, vm, 'the former generation boots again', () =>
        vm.awaitBoot(unwell, wait),
      )
      await comes(scene, vm, 'the boot is validated', 90, validated)
      scene.check('the good boot is golden', scene.start(vm), await vm.ask(golden))
    },
  },
]

/**
 * Pins the booted generation and, in the middle of that, rebuilds to the former golden: that trial must fall back on the
 * new golden generation.
 */
async function rebuildsAmidPin(scene: Scene): Promise<void> {
  const { vm, check } = scene
  const former = scene.start(vm)
  // each wait ends when its process has ended
  const input = `lock=":$(stat -c %i /run/golden-generation.lock) "
    pin-golden >/run/lab-pin 2>&1 & pin=$!
    until ! flock --nonblock /run/golden-generation.lock true || ! kill -0 $pin 2>/dev/null; do :; done
    kill -STOP $pin
    golden-arm-trial ${former} >/run/lab-arm 2>&1 & arm=$!
    until grep -q -- "->.*FLOCK.*$lock" /proc/locks || ! kill -0 $arm 2>/dev/null; do :; done
    kill -CONT $pin; wait $pin; echo "pin $?"; wait $arm; echo "arm $?"; cat /run/lab-arm`
  const said = await vm.ask('exec bash -s', { input, timeout: 60 * vm.patience })
  const armedAfter = new RegExp(`^pin 0\narm 0\n(.*\n)*on trial at the next boot: ${former}$`)
  check('a rebuild during a pin uses the new golden generation', armedAfter, said)
  // make the profile's own generation boot next
  await told(scene, vm, 'golden-arm-trial')
}

/** Boots a VM with an sshd that fails, and checks that it stays up. @returns boot_id of the boot before */
async function bootsUnwell(scene: Scene): Promise<string> {
  const { vm } = scene
  const before = await vm.bootId()
  await vm.root(
    `mkdir -p ${unitsByHand}/sshd.service.d; printf '[Service]\\nExecStartPre=/bin/sh -c "exit 1"\\nRestart=no\\n' >${unitsByHand}/sshd.service.d/lab.conf; sync`,
  )
  const failed = vm.serial(
    /Failed.*golden-boot-validation|Failed to start.*Validation of this boot/,
    'the validation to fail',
    120,
  )
  await vm.startReboot()
  await failed
  await staysDown(scene, vm, 10)
  return before
}
const wellAgain = `rm -r ${unitsByHand}/sshd.service.d; systemctl daemon-reload; systemctl reset-failed`

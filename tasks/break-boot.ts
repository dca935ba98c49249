import { scenarioTask, type Family, type Scene, type TrialCase } from '../lib/scenario/scenario.ts'
import {
  armed,
  becomesGolden,
  booted,
  boots,
  bootStatus,
  buildInGuest,
  comes,
  comesBack,
  failedTrials,
  failsTrial,
  harmless,
  makesDefault,
  notUp,
  panics,
  rebooted,
  rebuild,
  staysDown,
  validated,
} from '../lib/scenario/trial.ts'
import type { StorePath } from '../lib/nix/store.ts'
import { quote } from '../lib/quote.ts'
import { brokenTrials } from '../lib/scenario/broken-trials.ts'
import { bootCounting } from '../lib/scenario/boot-counting.ts'
import { goldenByHand } from '../lib/scenario/golden-by-hand.ts'
import { goldenDamaged } from '../lib/scenario/golden-damaged.ts'
import { pins } from '../lib/scenario/pins.ts'
import { ofGuest, unitsByHand } from '../lib/scenario/host-module.ts'
import { told } from '../lib/scenario/told.ts'

/** The record of a failed trial of another system. */
const failedBefore = `/nix/store/${'0'.repeat(32)}-of-before 2026-01-01T00:00:00Z it did not come up`

const others: TrialCase[] = [
  {
    name: 'good-trial',
    title: 'a good generation boots on trial, becomes golden, and boots from then on',
    own: true,
    limit: 300,
    ends: 'any',
    run: async (scene) => {
      const { vm } = scene
      // a script of the user's, which the firmware's shell runs when nothing boots
      const script = '/boot/startup.nsh'
      await vm.root(`echo 'echo mine' >${script}`)
      const trial = await armed(scene, vm, harmless)
      scene.ends(vm, trial)
      // the trial itself has failed before, too, as after a power cut; that is forgotten once it is golden
      const own = `${trial} 2026-01-01T00:00:00Z it did not come up`
      await vm.root(`printf '%s\\n' '${failedBefore}' '${own}' >>${failedTrials}`)
      const seconds = await boots(scene, vm, 'the trial boots', trial)
      scene.event(`${vm.host} booted on trial`, { host: vm.host, seconds })
      await leavesNoHang(scene)
      await becomesGolden(scene, vm, trial)
      const again = await boots(scene, vm, 'the new golden boots from then on', trial)
      scene.event(`${vm.host} rebooted`, { host: vm.host, seconds: again })
      const left = await vm.ask(`cat ${script} && rm ${script}`, { allow: 'any' })
      const list = (await vm.root(`cat ${failedTrials}`, { allow: 'any' })).stdout
      scene.check('earlier failed trials are still recorded', failedBefore, list.trim())
      scene.check('the user’s script on the ESP is unchanged', 'echo mine', left)
    },
  },
  {
    name: 'not-started',
    title:
      'another entry is chosen for the next boot instead of the trial: the trial does not count as failed, and boots the time after',
    own: true,
    limit: 400,
    ends: 'any',
    run: async (scene) => {
      const { vm } = scene
      const trial = await armed(scene, vm, harmless)
      await bootsGoldenInstead(scene, 'golden-*.conf')
      await isTriedAgain(scene, trial)
    },
  },
  {
    name: 'power-cut-as-armed',
    title:
      'the power fails after a trial was recorded and before its one-shot entry is set: the trial does not count as failed, and boots later',
    own: true,
    limit: 400,
    ends: 'any',
    run: async (scene) => {
      const { vm } = scene
      const trial = await buildInGuest(vm, scene.world.paths.flake, harmless, scene.say)
      const group = '/sys/fs/cgroup/system.slice/lab-arm.service'
      // bash itself reads the file, as a program would be too late
      const noted = `text=; until [[ $text == *'"state":"arm'* ]]; do { IFS= read -r -d '' text </var/lib/golden-generation/trial.json; } 2>/dev/null; done`
      const script = `systemd-run --quiet --no-block --unit=lab-arm bash -c ${quote(makesDefault(trial))}
        timeout 120 bash -c ${quote(noted)}; echo 1 >${group}/cgroup.freeze; sync; bootctl status --no-pager | grep -i oneshot || echo none`
      const oneshot = await vm.ask(script, { timeout: 150 * vm.patience })
      scene.must('the one-shot entry of the trial is not set', 'none', oneshot)
      const before = await vm.bootId()
      await vm.cutPower()
      await vm.powerOn()
      await vm.awaitBoot(before, { limit: 120, until: booted(scene.start(vm)) })
      await comes(scene, vm, 'golden is validated', 90, validated)
      await isTriedAgain(scene, trial)
    },
  },
  {
    name: 'never-started',
    title:
      'a trial is never started by the boot loader: it is armed three times, then given up as failed',
    own: true,
    limit: 400,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const trial = await armed(scene, vm, harmless)
      await vm.root(`echo '${failedBefore}' >>${failedTrials}`)
      for (const nth of [1, 2]) {
        await bootsGoldenInstead(scene)
        scene.check(
          `the trial is armed again after boot ${nth}`,
          trial,
          (await bootStatus(scene, vm))['trial'],
        )
      }
      const seconds = await bootsGoldenInstead(scene)
      await comesBack(scene, vm, trial, /^it was armed 3 times and never started: /, seconds)
      const list = await vm.ask(`cut -d ' ' -f 1 ${failedTrials}`)
      const both = `${failedBefore.split(' ')[0]}\n${trial}`
      scene.check('both failed trials are recorded', both, list)
    },
  },
  {
    name: 'hibernated',
    title:
      'a host with a trial armed hibernates, and its boot loader uses up the one-shot entry as the host wakes up: the trial is armed again, and boots next',
    own: true,
    limit: 300,
    ends: 'any',
    run: async (scene) => {
      const { vm } = scene
      const trial = await armed(scene, vm, harmless)
      scene.ends(vm, trial)
      // the image on the disk is left out: what a trial meets is that the boot loader runs, and the same boot goes on
      const unit = 'systemd-hibernate.service'
      const wakes = `[Service]\nEnvironment=PATH=/run/current-system/sw/bin:/usr/bin\nExecStart=\nExecStart=/bin/sh -c "sleep 3; bootctl set-oneshot '' && touch /run/lab-woken"\n`
      const woken = await vm.ask(
        `mkdir -p /run/systemd/system/${unit}.d && printf ${quote(wakes)} >/run/systemd/system/${unit}.d/lab.conf
        systemctl daemon-reload && systemctl start hibernate.target; ls /run/lab-woken`,
        { timeout: 60 * vm.patience },
      )
      scene.must('the one-shot entry was used up', '/run/lab-woken', woken)
      const variables = '/sys/firmware/efi/efivars'
      await comes(
        scene,
        vm,
        'the trial is armed again',
        30,
        `ls ${variables} | grep -q LoaderEntryOneShot`,
      )
      await boots(scene, vm, 'the trial boots', trial)
      await becomesGolden(scene, vm, trial)
    },
  },
  {
    name: 'fails-twice',
    title:
      'a generation that has failed is put on trial again by another rebuild, and fails again: golden comes back both times',
    limit: 400,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      for (const _ of [1, 2]) await failsTrial(scene, vm, await armed(scene, vm, panics), notUp)
    },
  },
  {
    name: 'garbage-kernel',
    title:
      'a rebuild has a kernel that no firmware can start: it is refused before anything is put on trial',
    own: true,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const { code, said } = await rebuild(scene, vm, `{ ${ofGuest('noKernel')} }`)
      scene.check('the rebuild is refused', 1, code)
      scene.check('the refused rebuild says why', /is no program that firmware can start/, said)
      await told(scene, vm, 'rollback-to-golden')
      await boots(scene, vm, 'golden boots', scene.start(vm))
    },
  },
  {
    name: 'power-cut',
    title:
      'the power fails at a random moment while a good generation boots on trial: golden boots next',
    limit: 240,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const trial = await armed(scene, vm, harmless)
      const before = await vm.bootId()
      // all of them after the boot loader has cleared the one-shot entry
      const moments = [
        /Welcome to/,
        /Reached target.*(local-fs\.target|Local File Systems)/,
        /Started.*(sshd|SSH Daemon)/,
      ]
      const moment = moments[Math.floor(scene.random() * moments.length)]!
      const reached = vm.serial(moment, `its boot to come to ${moment.source}`, 90)
      await vm.startReboot()
      await reached
      await vm.cutPower()
      await vm.powerOn()
      const wait = { limit: 120, until: booted(scene.start(vm)) }
      const seconds = await rebooted(scene, vm, 'golden boots again', () =>
        vm.awaitBoot(before, wait),
      )
      await comesBack(scene, vm, trial, /lost its power/, seconds)
    },
  },
  {
    name: 'collected',
    title:
      'old generations are collected and the boot entries installed anew: golden survives, and comes back after a broken trial',
    own: true,
    limit: 300,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const trial = await armed(scene, vm, panics)
      await vm.root(
        `nix-collect-garbage -d >/dev/null 2>&1
        bootctl set-default ''
        /nix/var/nix/profiles/system/bin/switch-to-configuration boot`,
        { timeout: 120 * vm.patience },
      )
      const { stdout } = await vm.root(
        'ls -d /nix/var/nix/profiles/system-*-link | wc -l; show-golden',
        // show-golden fails when it reports a problem
        { timeout: 30 * vm.patience, allow: 'any' },
      )
      scene.check('only the new generation is left in the profile', '1', stdout.split('\n')[0])
      scene.check('golden is whole', /^\d+\ngolden: (?!.*PROBLEM)/s, stdout)
      await failsTrial(scene, vm, trial, notUp, 150)
    },
  },
  {
    name: 'damaged-golden',
    title:
      "golden's own files on the ESP are cut in half: a rebuild restores them, from golden's own entry and not from a copy of it, and golden comes back when the new generation panics",
    own: true,
    limit: 300,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      await vm.root(
        'for file in /boot/EFI/golden/*; do truncate -s $(($(stat -c %s "$file") / 2)) "$file"; done; sync -f /boot',
      )
      // a user's copy of golden's entry, for debugging; its name sorts first
      await vm.root(
        `cd /boot/loader/entries && sed 's/^options .*/& systemd.unit=rescue.target/' "$(grep -l 'init=${scene.start(vm)}/init' nixos-*.conf)" >debug.conf`,
      )
      const damaged = await vm.root('show-golden', { allow: 'any' })
      scene.check(
        'show-golden reports the damage',
        /^1 .*^PROBLEM /ms,
        `${damaged.code} ${damaged.stdout}`,
      )
      const trial = await armed(scene, vm, panics)
      scene.must(
        'golden is whole',
        /^golden: (?!.*PROBLEM)/s,
        (await vm.root('show-golden', { allow: 'any' })).stdout,
      )
      const entries = await vm.ask(
        'cd /boot/loader/entries && grep -l rescue *.conf; rm debug.conf',
      )
      scene.must('golden’s entry is not made from the user’s copy', 'debug.conf', entries)
      await failsTrial(scene, vm, trial, notUp)
    },
  },
  {
    name: 'emergency-on-demand',
    title:
      'a trial is booted into emergency mode on purpose: no deadline reboots it while a person works there',
    own: true,
    limit: 300,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      await endsNoneAskedFor(scene)
      await armed(scene, vm, '{ boot.kernelParams = [ "emergency" ]; }')
      const before = await vm.bootId()
      const reached = vm.serial(/emergency mode/i, 'the trial to come to emergency mode', 120)
      await vm.startReboot()
      await reached
      await staysDown(scene, vm, 15)
      await powerCycled(scene, before)
      const { lastFailed } = await bootStatus(scene, vm)
      scene.check(
        'the trial is recorded as one that did not come up',
        / it did not come up/,
        lastFailed ?? undefined,
      )
    },
  },
  {
    name: 'golden-panics',
    title:
      'golden itself panics: it halts with the panic on the console, and boots again after a power cycle',
    own: true,
    limit: 300,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const before = await vm.bootId()
      await illOnce(vm, 'echo c >/proc/sysrq-trigger')
      const panic = vm.serial(/end Kernel panic|Kernel panic - not syncing/, 'golden to panic', 120)
      await vm.startReboot()
      await panic
      // with a panic timeout it would reboot after 5 s, with a watchdog after 30 s
      await staysDown(scene, vm, 15)
      const seconds = await powerCycled(scene, before)
      scene.event(`${vm.host} recovered`, { host: vm.host, seconds })
      await leavesNoHang(scene)
    },
  },
]

/**
 * Switches a halted VM off and on, and waits until golden has booted and is validated.
 * @param before boot_id of the last good boot
 * @returns seconds to golden's SSH
 */
async function powerCycled({ vm, start }: Scene, before: string): Promise<number> {
  await vm.cutPower()
  await vm.powerOn()
  const seconds = await vm.awaitBoot(before, { limit: 120, until: booted(start(vm)) })
  await vm.until('golden to be validated', 90, validated)
  return seconds
}

/** Checks that a boot with golden to fall back on reboots after a panic or a hang. */
async function leavesNoHang({ vm, check }: Scene): Promise<void> {
  check('a panic leads to a reboot', '10', await vm.ask('cat /proc/sys/kernel/panic'))
  check(
    'a hang leads to a reboot',
    /^[1-9]/,
    await vm.ask('systemctl show --value -p RuntimeWatchdogUSec'),
  )
}

/** Tests each word of kernel-command-line(7) for emergency or rescue mode, as one boot could not have them all. */
async function endsNoneAskedFor({ vm, check }: Scene): Promise<void> {
  const words =
    'emergency -b rescue single s S 1 systemd.unit=emergency.target systemd.unit=rescue.target'
  const said = await vm.ask(`for word in quiet ${words}; do
    SYSTEMD_PROC_CMDLINE="ro $word" systemd-analyze condition --unit=golden-trial-deadline.service >/dev/null 2>&1 && echo $word
  done; :`)
  check('the deadline spares a boot into a requested mode', 'quiet', said)
}

/**
 * Reboots into golden while something else is on trial.
 * @param entry glob of the entry to choose for that one boot; by default the one-shot entry is cleared
 * @returns seconds to golden's SSH
 */
async function bootsGoldenInstead(scene: Scene, entry?: string): Promise<number> {
  const { vm } = scene
  const chosen = entry ? `"$(cd /boot/loader/entries && ls ${entry})"` : "''"
  await vm.root(`bootctl set-oneshot ${chosen}`)
  const { oneshot } = await bootStatus(scene, vm)
  scene.check('show-boot-status names the chosen next boot', entry ? /^golden-/ : null, oneshot)
  const seconds = await boots(scene, vm, 'golden boots instead', scene.start(vm))
  await comes(scene, vm, 'golden is validated', 90, validated)
  return seconds
}

/** A trial that was not started has not failed: it boots the next time, and becomes golden. */
async function isTriedAgain(scene: Scene, trial: StorePath): Promise<void> {
  const { vm, check } = scene
  const { trial: next, lastFailed } = await bootStatus(scene, vm)
  check('the trial is armed again', trial, next ?? undefined)
  check('no trial is recorded as failed', null, lastFailed)
  scene.ends(vm, trial)
  await boots(scene, vm, 'the trial boots', trial)
  await becomesGolden(scene, vm, trial)
}

/** Makes the next boot, of whichever generation, run a script early on, once. */
const illOnce = (vm: Scene['vm'], script: string) =>
  vm.root(
    `mkdir -p ${unitsByHand}/sysinit.target.wants && cd ${unitsByHand}
    printf '[Unit]\\nDefaultDependencies=no\\nConditionPathExists=/var/lib/lab-ill\\n[Service]\\nType=oneshot\\nEnvironment=PATH=/run/current-system/sw/bin:/usr/bin\\nExecStart=/bin/sh -c "rm /var/lib/lab-ill; sync; ${script}"\\n' >lab-ill.service
    ln -sfn ../lab-ill.service sysinit.target.wants/; touch /var/lib/lab-ill; sync`,
  )

const cases = [
  ...brokenTrials,
  ...others,
  ...pins,
  ...bootCounting,
  ...goldenByHand,
  ...goldenDamaged,
]

export const family: Family = {
  name: 'break-boot',
  describe: 'Break the boot of a new generation in every way, and see golden come back by itself',
  cases: cases.map((one) => ({ ...one, promise: 'fallback' })),
}

await scenarioTask(import.meta, family)

import type { Scene, TrialCase } from './family.ts'
import { apartFromTime, everything, refused, said, state, variables } from './golden-state.ts'
import { unitsByHand } from './host-module.ts'
import { told } from './told.ts'
import { booted, bootStatus, buildInGuest, comes, harmless, makesDefault } from './trial.ts'

/** Golden commands on a running host; none of them needs a reboot. */
export const goldenByHand: TrialCase[] = [
  {
    name: 'asked-amiss',
    title:
      'commands for golden with wrong arguments, without root, at a wrong moment and on an unhealthy host: each is refused with its reason and changes nothing',
    own: true,
    limit: 300,
    ends: 'golden',
    run: askedAmiss,
  },
  {
    name: 'nothing-golden',
    title:
      'golden is unpinned and pinned again, also while /boot or the boot loader’s variables cannot be written: no command is left half done',
    own: true,
    limit: 300,
    ends: 'golden',
    run: nothingGolden,
  },
]

/** Runs a command in its own mount namespace, so that the cut affects nothing else on the host. */
const where = (cut: string, command: string): string =>
  `unshare --mount sh -c '${cut} && { ${command}; }'`
const readOnly = (path: string): string => `mount -o remount,bind,ro ${path}`

async function askedAmiss(scene: Scene): Promise<void> {
  const { vm, check } = scene
  const golden = scene.start(vm)
  const start = await everything(vm)
  const wrong = ['pin-golden now', 'unpin-golden --force', 'rollback-to-golden now'].concat([
    'show-golden all',
    'show-boot-status -v',
    'golden-boot-validation now',
  ])
  for (const command of wrong) {
    const usage = new RegExp(`^2 Usage: ${command.split(' ')[0]}( |$)`)
    check('a wrong argument is answered with the usage', usage, await said(vm, command))
  }
  const mine = ['pin-golden', 'unpin-golden', 'rollback-to-golden', 'golden-boot-validation']
  for (const command of mine) {
    const root = /^1 .*only root may/
    check(
      'a user is told that only root may run the command',
      root,
      await said(vm, command, 'user'),
    )
  }
  const shown = new RegExp(`^0 golden: ${golden}\\n(?!.*PROBLEM)`, 's')
  check('a user may run show-golden', shown, await said(vm, 'show-golden', 'user'))
  check('the refused commands change nothing', start, await everything(vm))

  const trial = await buildInGuest(vm, scene.world.paths.flake, harmless, scene.say)
  const noEntry = /^1 .*Cannot put .* on trial: no boot entry names it$/
  await refused(scene, 'a trial without a boot entry', noEntry, `golden-arm-trial ${trial}`)
  await told(scene, vm, makesDefault(trial))
  await told(scene, vm, `systemd-run --quiet --wait ${trial}/bin/switch-to-configuration test`)
  const status = await bootStatus(scene, vm)
  const words = `booted:       ${golden} (golden)
running:      ${trial} (on trial)
profile:      ${trial} (on trial)
golden:       ${golden}
boot default: ${status['goldenEntry']}
next boot:    ${status['oneshot']}
validation:   ${status['validation']}`
  check(
    'show-boot-status describes the boot state',
    words,
    await told(scene, vm, 'show-boot-status'),
  )
  await refused(
    scene,
    'pinning a generation that was not booted',
    /^1 .*\n.*: reboot first$/,
    'pin-golden',
  )
  // a refused trial also cancels the trial that was armed before
  await vm.root('mkdir /run/lab-none && touch /run/lab-none/init')
  const none = await said(vm, 'golden-arm-trial /run/lab-none')
  check('a trial that cannot boot is refused', noEntry, none)
  const { trial: now, oneshot } = await bootStatus(scene, vm)
  check('a refused trial cancels the one before it', 'null null', `${now} ${oneshot}`)
  await told(scene, vm, 'rollback-to-golden')

  const order = `systemctl show --value -p After golden-boot-validation.service
    systemctl show --value -p TimersMonotonic golden-trial-deadline.timer`
  const [after, begins] = (await vm.ask(order)).split('\n')
  const walls = /^(?=(.* )?firewall\.service\b)(?=(.* )?nftables\.service\b)/
  check('a boot is validated after its firewall is up', walls, after)
  // the first stage may wait for a passphrase, and that time does not count
  check('the deadline of a trial counts from the start of systemd', /^\{ OnStartupUSec=/, begins)

  await waitsForLock(scene)
  await deadlineWaits(scene)

  const before = await everything(vm)
  const dropIn = `${unitsByHand}/sshd.service.d`
  const unwell = `mkdir -p ${dropIn}; printf '[Service]\\nExecStartPre=/bin/sh -c "exit 1"\\nRestart=no\\n' >${dropIn}/lab.conf
    systemctl daemon-reload; systemctl restart sshd.service; pin-golden 2>&1; echo "exit $?"
    rm -r ${dropIn}; systemctl daemon-reload; systemctl reset-failed sshd.service; systemctl start sshd.service`
  const { stdout } = await vm.agent(unwell, { limit: 60, allow: 'any' })
  vm.disconnect()
  await vm.until('SSH to answer', 30, booted(golden))
  const dead = /: Cannot pin \S+: sshd\.service is failed\nexit 1$/
  check('a pin on an unhealthy host is refused, with its reason', dead, stdout.trim())
  check('a pin on an unhealthy host changes nothing', before, await everything(vm))
}

/** Holds the lock of golden until its unit is stopped. */
const holdsLock = `systemd-run --quiet --unit=lab-lock flock /run/golden-generation.lock sleep infinity
    until ! flock --nonblock /run/golden-generation.lock true; do :; done`
/** True while another process waits for that lock. */
const waiting = `grep -q -- '->.*FLOCK.*:'"$(stat -c %i /run/golden-generation.lock) " /proc/locks`

/** Commands that change golden run one after the other. */
async function waitsForLock(scene: Scene): Promise<void> {
  const { vm, check } = scene
  const [before, whole] = [await everything(vm), await apartFromTime(vm)]
  await vm.root(`${holdsLock}
    systemd-run --quiet --unit=lab-pin --remain-after-exit "$(command -v pin-golden)"`)
  await comes(scene, vm, 'a pin waits for another command', 30, waiting)
  check('a waiting pin has changed nothing', before, await everything(vm))
  await vm.root('systemctl stop lab-lock.service')
  const over = 'systemctl show --value -p SubState lab-pin.service | grep -qx exited'
  await comes(scene, vm, 'the waiting pin goes on once the lock is free', 60, over)
  check('the pin changes nothing but its time', whole, await apartFromTime(vm))
  check('golden is pinned anew', true, before !== (await everything(vm)))
  await vm.root('systemctl stop lab-pin.service')
}

/** The deadline of a trial waits for the lock while the boot is validated, and then finds the trial over. */
async function deadlineWaits(scene: Scene): Promise<void> {
  const { vm, check, must } = scene
  const before = await everything(vm)
  const unit = 'golden-trial-deadline.service'
  const record = `{"toplevel":"${scene.start(vm)}","entry":"none.conf","boot":"another","state":"armed"}`
  await vm.root(`${holdsLock}
    echo '${record}' >${state}/trial.json; systemctl start --no-block ${unit}`)
  await comes(scene, vm, 'a deadline waits for the validation of the boot', 30, waiting)
  const jobs = await vm.ask(
    `rm ${state}/trial.json; systemctl stop lab-lock.service
    while [ "$(systemctl show --value -p ActiveState ${unit})" = activating ]; do sleep 0.2; done
    systemctl list-jobs --no-legend reboot.target`,
    { allow: 'any' },
  )
  must('a deadline leaves a validated boot alone', '', jobs)
  check('a deadline without a trial changes nothing', before, await everything(vm))
}

async function nothingGolden(scene: Scene): Promise<void> {
  const { vm, check } = scene
  const golden = scene.start(vm)
  const start = await apartFromTime(vm)
  const noBoot = where('umount /boot', 'pin-golden; code=$?; find /boot; exit $code')
  const mounted = /^1 .*Cannot make .* golden: .*\(is \/boot mounted\?\)\n\/boot$/s
  const unwritten = /^1 .*Cannot make .* golden: \S+ cannot be written$/s
  const noVariables = readOnly(variables)
  const unset = /the boot loader's default cannot be set$/s

  await refused(scene, 'a pin without /boot', mounted, noBoot)
  await refused(
    scene,
    'a pin on a read-only /boot',
    unwritten,
    where(readOnly('/boot'), 'pin-golden'),
  )
  for (const cut of ['umount /boot', readOnly('/boot')]) {
    const kept = /^1 .*Cannot unpin .*\(is \/boot mounted\?\)$/s
    await refused(scene, `unpinning after \`${cut}\``, kept, where(cut, 'unpin-golden'))
  }
  await refused(
    scene,
    'unpinning with read-only EFI variables',
    unset,
    where(noVariables, 'unpin-golden'),
  )

  const gone = await told(scene, vm, 'unpin-golden')
  check('unpin-golden names what is no longer golden', `no longer golden: ${golden}`, gone)
  const left = `find /boot -iname '*golden*'; ls -d ${state}/golden.json /nix/var/nix/gcroots/golden-* 2>/dev/null`
  check('unpin-golden leaves no files of golden', '', await vm.ask(left, { allow: 'any' }))
  const { booted: now, validation = null, ...none } = await bootStatus(scene, vm)
  const words = `booted:       ${golden}
running:      ${golden}
profile:      ${golden}
golden:       none
boot default: chosen by the boot loader
next boot:    the default
validation:   ${validation}`
  check(
    'show-boot-status describes the boot state',
    words,
    await told(scene, vm, 'show-boot-status'),
  )
  check('show-boot-status --json names the booted generation', golden, now)
  check(
    'show-boot-status --json has the validation',
    'active success',
    validation?.split(' ').toSorted().join(' '),
  )
  const { golden: no, goldenEntry, trial, default: chosen, oneshot } = none
  const nulls = [no, goldenEntry, trial, chosen, oneshot].map((one) => one ?? 'none').join(' ')
  check('show-boot-status --json has nothing of golden', 'none none none none none', nulls)
  const ungolden = /: (Cannot go back: )?no generation is golden$/
  await refused(scene, 'show-golden without a golden generation', ungolden, 'show-golden')
  await refused(
    scene,
    'rollback-to-golden without a golden generation',
    ungolden,
    'rollback-to-golden',
  )
  await refused(
    scene,
    'rollback-to-golden --reboot without golden',
    ungolden,
    'rollback-to-golden --reboot',
  )
  await refused(
    scene,
    'unpin-golden without a golden generation',
    /^0 no generation is golden$/,
    'unpin-golden',
  )

  await refused(scene, 'a first pin without /boot', mounted, noBoot)
  await refused(
    scene,
    'a first pin on a read-only /boot',
    unwritten,
    where(readOnly('/boot'), 'pin-golden'),
  )
  await refused(
    scene,
    'a first pin with read-only EFI variables',
    unset,
    where(noVariables, 'pin-golden'),
  )
  const pinned = await told(scene, vm, 'pin-golden')
  check(
    'golden is pinned once all can be written',
    `golden from now on: ${golden}`,
    pinned.split('\n').at(-1),
  )
  check('after unpin and pin, the boot state is as before', start, await apartFromTime(vm))

  // without golden a rebuild is what boots next; pinning golden then puts it on trial
  await told(scene, vm, 'unpin-golden')
  const next = await buildInGuest(vm, scene.world.paths.flake, harmless, scene.say)
  await told(scene, vm, makesDefault(next))
  const armed = (await told(scene, vm, 'pin-golden')).split('\n').at(-1)
  check(
    'a first pin puts the next generation on trial',
    `on trial at the next boot: ${next}`,
    armed,
  )
  check('show-boot-status --json names the trial', next, (await bootStatus(scene, vm))['trial'])
  await told(scene, vm, 'rollback-to-golden')
}

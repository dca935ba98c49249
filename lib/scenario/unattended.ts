import { NotApplicable, type Case, type Scene } from './family.ts'
import type { Subject } from './subject.ts'
import { ofGuest, unitsByHand } from './host-module.ts'
import { becomesGolden, booted, boots, comes, comesBack, rebooted } from './trial.ts'
import { livesEast, ownZone } from './time-zone.ts'
import { doAsTold } from './told.ts'
import { deployedBy, deploys, module, noted, upgrades } from './upgrade.ts'
import type { Deployed } from './upgrade-unit.ts'

/** For a module that has `lib`: options of the subject, which `text` has to set by force over the host's own. */
const settings = ({ options }: Subject, text: string): string => {
  if (options === undefined) throw new NotApplicable('n/a: it has no options that a host could set')
  return `${options} = { ${text} };`
}

/** What a host does unattended: it reboots, waits and tidies up. */
export const unattended: Case[] = [
  {
    name: 'reboots',
    title:
      'reboots are allowed at this hour: the host reboots into a new initrd by itself, and it becomes golden',
    promise: 'reboot',
    limit: 400,
    ends: 'main',
    run: async (scene) => {
      const { vm } = scene
      // eight o'clock: 08 is no valid octal number, as which shells read it; the allowed hours began yesterday
      const hour = Number(await vm.ask('date --utc +%H'))
      await livesEast(vm, (32 - hour) % 24)
      const allowed = `${ownZone} ${settings(scene.subject, reboots('22:30', '10:00'))}`
      const { toplevel } = await rebootsInto(scene, allowed, ofGuest('anotherFirstStage'), deployed)
      if (!scene.golden(vm)) return
      await becomesGolden(scene, vm, toplevel)
      await upgrades(scene, vm, { outcome: 'up-to-date' })
    },
  },
  {
    name: 'reboots-back',
    title: 'a commit does not boot: golden comes back by itself, and the commit is not tried again',
    promise: 'fallback',
    own: true,
    limit: 400,
    ends: 'golden',
    run: async (scene) => {
      const { vm } = scene
      const allowed = settings(scene.subject, reboots())
      const unit = `${vm.subject.unit}.service`
      // as if its own timer were due whenever it boots
      await vm.root(`mkdir -p ${unitsByHand}/timers.target.wants && cd ${unitsByHand}
        printf '[Timer]\\nOnActiveSec=1\\nUnit=${unit}\\n' >lab-due.timer
        ln -sfn ../lab-due.timer timers.target.wants/; sync`)
      const { toplevel, seconds } = await rebootsInto(scene, allowed, ofGuest('brokenFirstStage'), {
        name: 'golden boots again',
        condition: booted(scene.start(vm)),
      })
      await comesBack(scene, vm, toplevel, /^it did not come up/, seconds)
      const began = (property: string, of: string) =>
        `$(systemctl show --value -p ${property}TimestampMonotonic ${of})`
      const validation = began('ActiveEnter', 'golden-boot-validation.service')
      const upgrade = began('ExecMainStart', unit)
      await comes(scene, vm, 'the upgrade runs at boot', 90, `[ "${upgrade}" -gt 0 ]`)
      const order = await vm.ask(
        `[ "${validation}" -le "${upgrade}" ] && echo after || echo before`,
      )
      scene.check('the upgrade waits for the validation of the boot', 'after', order)
      await upgrades(scene, vm, { outcome: 'skipped-known-bad' })
    },
  },
  {
    name: 'reboot-waits',
    title:
      'a reboot is due outside its allowed hours, by the host’s clock, or during an upgrade: it waits, and happens afterwards',
    promise: 'reboot',
    own: true,
    limit: 300,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      // nine hours east, where the local time is outside these hours, which have come by UTC
      await livesEast(vm, 9)
      const hours = "date +%z; for at in '-1 hour' '+1 hour'; do date --utc -d \"$at\" +%H:%M; done"
      const [offset, lower, upper] = (await vm.ask(hours)).split('\n')
      scene.must('the host has a time zone', '+0900', offset)
      const later = settings(scene.subject, reboots(lower!, upper!))
      const host = (more: string): ReturnType<typeof module> =>
        module(vm, `{ lib, ... }: { ${ownZone} ${later} ${more} }\n`)
      await world.config.commit(host(''), 'Reboot later')
      await upgrades(scene, vm, { outcome: 'upgraded' })
      await world.config.commit(host(ofGuest('anotherFirstStage')), 'Another first stage')
      const before = await vm.bootId()
      const reason = new RegExp(`a reboot is due, and waits for ${lower}-${upper}`)
      await upgrades(scene, vm, { outcome: 'upgraded', reason })
      scene.check('the host has not rebooted', before, await vm.bootId())
      const job = 'systemctl list-jobs --no-legend reboot.target'
      scene.check('no reboot is queued', '', await vm.ask(job))
      const timer = 'nix-local-upgrade-reboot.timer'
      const next = `systemctl is-active ${timer}; systemctl show --value -p TimersCalendar ${timer}`
      const begins = new RegExp(`^active\\n.*OnCalendar=\\*-\\*-\\* ${lower}:00 `)
      scene.check(
        'the reboot timer is set to the start of the allowed hours',
        begins,
        (await vm.root(next)).stdout,
      )
      await rebootsAfter(scene, host)
    },
  },
  {
    name: 'reboot-left',
    title:
      'a reboot is due before the host allows any: it happens in the allowed hours, but not during a rebuild or while an interrupted upgrade is unfinished',
    promise: 'reboot',
    own: true,
    limit: 300,
    ends: 'main',
    run: leftForLater,
  },
  {
    name: 'boots-elsewhere',
    title:
      'the user has fixed one generation as the boot default, and nothing is golden: the host reboots only once, and the upgrade says what to do',
    promise: 'reboot',
    own: true,
    limit: 600,
    ends: 'main',
    run: bootsElsewhere,
  },
  {
    name: 'tidies-up',
    title:
      'generations that are too old are deleted with their boot entries, also when their numbers gain a digit; golden and the newest stay',
    promise: 'tidy',
    own: true,
    limit: 400,
    ends: 'main',
    run: async (scene) => {
      const { vm, world } = scene
      const few = settings(
        scene.subject,
        'keepGenerations = lib.mkForce 1; keepDays = lib.mkForce 2;',
      )
      // the next generations are 9 and 10, and 10 is the newer one
      await vm.root(
        `cd /nix/var/nix/profiles && now=$(readlink system) && at=8
        [ -z "$(find . -name 'system-[89]-link' -o -name 'system-??-link')" ] || at=98
        ln -sfn "$(readlink "$now")" system-$at-link && ln -sfn system-$at-link system
        system/bin/switch-to-configuration boot`,
        { timeout: 60 * vm.patience },
      )
      await world.config.commit(module(vm, `{ lib, ... }: { ${few} }\n`), 'Keep one')
      const first = await deploys(scene, vm)
      const changed = async (text: string, limit: number): Promise<Deployed> => {
        await world.config.commit(module(vm, `{ lib, ... }: { ${few} ${noted(text)} }\n`), text)
        return deploys(scene, vm, { limit })
      }
      const second = await changed('two', 90)
      const link = `/nix/var/nix/profiles/system-${first.generation}-link`
      const there = await vm.ask(`readlink -f ${link}`, { allow: 'any' })
      scene.must('the previous generation is kept', first.toplevel, there)
      // only the links have an age, as all store paths are of 1970
      await vm.root(`cd /nix/var/nix/profiles
        touch -h -d '3 days ago' $(find . -name 'system-*-link' ! -newer system-${first.generation}-link)
        for at in 1 2; do ln -s ${scene.start(vm)} lab-$at-link; touch -h -d "$((9 - at)) days ago" lab-$at-link; done
        ln -s lab-2-link lab`)
      const third = await changed('three', 150)
      const said = await vm.ask(`cd /nix/var/nix/profiles && readlink -f system-*-link | sort -u
        echo; grep -h -o 'init=[^ ]*/init' /boot/loader/entries/nixos-*.conf | sed 's/^init=//; s,/init$,,' | sort -u
        echo; [ -e ${first.toplevel} ] && echo there || echo gone`)
      const [kept, entries, old] = said.split('\n\n')
      const good = [scene.start(vm), second.toplevel, third.toplevel].toSorted().join('\n')
      scene.check('golden, the newest and today’s generation are kept', good, kept)
      scene.check('the kept generations have boot entries', good, entries)
      scene.check('an older generation is collected from the store', 'gone', old)
      const others = await vm.ask('cd /nix/var/nix/profiles && echo lab*')
      scene.check('another profile keeps its generations', 'lab lab-1-link lab-2-link', others)
    },
  },
]

async function leftForLater(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const hours = `for at in '+2 hours' '+4 hours'; do date -d "$at" +%H:%M; done; date -d '+2 hours' +%F`
  const [lower, upper, day] = (await vm.ask(hours)).split('\n')
  const later = settings(scene.subject, reboots(lower!, upper!))
  const text = `{ lib, ... }: { ${later} ${ofGuest('anotherFirstStage')} }\n`
  await world.config.commit(module(vm, text), 'Reboot later')
  // the agent that runs this upgrade has the old settings, which allow no reboot
  const { toplevel } = await deploys(scene, vm, { reason: /a reboot is due, but not allowed/ })
  const reboot = `${vm.subject.unit}-reboot.service`
  const after = (await vm.root(`systemctl show --value -p After ${reboot}`)).stdout
  check(
    'the reboot waits for the validation of the boot',
    /\bgolden-boot-validation\.service\b/,
    after,
  )

  const asked = (): Promise<string> =>
    vm.ask(`systemctl start ${reboot}; systemctl list-jobs --no-legend reboot.target
        journalctl --no-pager -o cat -n 6 -u ${reboot}`)
  const stays = (why: string): RegExp => new RegExp(`^(?!.*reboot\\.target).*${why}`, 's')
  check(
    'the reboot waits for the allowed hours',
    stays(`waits for ${lower}-${upper}`),
    await asked(),
  )
  const lock = '/run/nixos/switch-to-configuration.lock'
  // the minute at which the timer starts it
  await vm.root(`systemd-run --quiet --unit=lab-rebuild flock ${lock} sleep infinity
    until ! flock --nonblock ${lock} true; do :; done; date -s '${day} ${lower}' >/dev/null`)
  const rebuilds = stays('waits for a rebuild that is running \\(pid \\d+, .*flock')
  check('the reboot waits for a running rebuild', rebuilds, await asked())
  const record = '/var/lib/nix-local-upgrade/transaction.json'
  await vm.root(`echo '{}' >${record}; systemctl stop lab-rebuild.service`)
  check('the reboot waits for an interrupted upgrade', stays('was cut off'), await asked())

  const before = await vm.bootId()
  await vm.root(`rm ${record}; systemctl start --no-block ${reboot}`)
  await rebootsByItself(scene, before, deployed)
  await becomesGolden(scene, vm, toplevel)
}

/** The hours for a reboot begin while the next upgrade runs: the reboot waits for its end. */
async function rebootsAfter(
  scene: Scene,
  host: (more: string) => ReturnType<typeof module>,
): Promise<void> {
  const { vm, world } = scene
  const slow = `systemd.services.lab-slow = { wantedBy = [ "multi-user.target" ]; path = [ "/run/current-system/sw" ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; }; script = "sleep 15"; };`
  await world.config.commit(host(`${ofGuest('anotherFirstStage')} ${slow}`), 'Slow')
  const before = await vm.bootId()
  await vm.root(`systemctl start --no-block ${vm.subject.unit}.service`)
  const switching = '[ "$(systemctl show --value -p ActiveState lab-slow.service)" = activating ]'
  await comes(scene, vm, 'the upgrade switches', 90, switching)
  const reboot = 'nix-local-upgrade-reboot.service'
  // set the clock into these hours, and start what the timer would
  const said = await vm.ask(`date -s '+15 hours' >/dev/null; systemctl start ${reboot}
    systemctl list-jobs --no-legend reboot.target; journalctl --no-pager -o cat -n 6 -u ${reboot}`)
  scene.check(
    'the host does not reboot during the upgrade',
    /^(?!.*reboot\.target).*at work/s,
    said,
  )
  await rebootsByItself(scene, before, { ...deployed, name: 'the host reboots after the upgrade' })
  await becomesGolden(scene, vm, await vm.running())
}

/** Settings of a host that may reboot: between two times of day, or at any time. */
const reboots = (lower?: string, upper?: string): string =>
  `allowReboot = lib.mkForce true;${lower === undefined ? '' : ` rebootWindow = lib.mkForce { lower = "${lower}"; upper = "${upper}"; };`}`

async function bootsElsewhere(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const off = 'myModules.system.boot.goldenGeneration.enable = lib.mkForce false;'
  const host = `${settings(scene.subject, reboots())} ${off}`
  await world.config.commit(module(vm, `{ lib, ... }: { ${host} }\n`), 'Without golden')
  const { toplevel: chosen } = await deploys(scene, vm)
  // as `d` in the boot menu does
  await vm.root(
    `entry=$(grep -l 'init=${chosen}/init' /boot/loader/entries/*.conf) && bootctl set-default "\${entry##*/}"`,
  )
  await boots(scene, vm, 'the generation that the user chose boots', chosen)
  const stage = ofGuest('anotherFirstStage')
  await world.config.commit(module(vm, `{ lib, ... }: { ${host} ${stage} }\n`), 'Another')
  const [first, unit] = [await vm.bootId(), vm.subject.unit]
  await vm.root(`systemctl start --no-block ${unit}.service`)
  await rebootsByItself(scene, first, {
    name: 'the generation that the user chose boots again',
    condition: booted(chosen),
  })
  const before = await vm.bootId()
  const reason =
    /a reboot is due, but the last reboot for it started another generation: the boot default is nixos-/
  const { reason: said } = await upgrades(scene, vm, { outcome: 'upgraded', reason })
  const jobs = await vm.ask('systemctl list-jobs --no-legend reboot.target')
  check('no reboot is queued', '', jobs)
  check('the host has not rebooted', before, await vm.bootId())
  await doAsTold(scene, vm, said!.slice(said!.indexOf('the boot default')))
  await vm.root(`systemctl start --no-block ${unit}.service`)
  await rebootsByItself(scene, before, deployed)
  await world.config.commit(module(vm, `{ ${noted('golden again')} }\n`), 'With golden')
  const { toplevel } = await deploys(scene, vm)
  await boots(scene, vm, 'the trial boots', toplevel)
  await becomesGolden(scene, vm, toplevel)
}

/** An expected boot, and a shell condition that holds in it. */
interface Boot {
  name: string
  condition: string
}

/** The boot of the generation that the upgrade deployed. */
const deployed: Boot = {
  name: 'the new generation boots',
  condition:
    '[ "$(readlink -f /run/booted-system)" = "$(readlink -f /nix/var/nix/profiles/system)" ]',
}

/** Waits for a boot that the host begins by itself. @param before boot_id of the boot before @returns seconds */
const rebootsByItself = (
  scene: Scene,
  before: string,
  { name, condition: until }: Boot,
): Promise<number> => {
  const wait = { name: 'to reboot by itself', limit: 120, until }
  return rebooted(scene, scene.vm, name, () => scene.vm.awaitBoot(before, wait))
}

/**
 * Allows a host to reboot by itself, then deploys another initrd, for which it does.
 * @param allowed settings that allow it to reboot
 * @param into the expected boot
 * @returns the toplevel that was deployed, and the seconds to that boot
 */
async function rebootsInto(
  scene: Scene,
  allowed: string,
  stage: string,
  into: Boot,
): Promise<{ toplevel: string; seconds: number }> {
  const { vm, world } = scene
  await world.config.commit(module(vm, `{ lib, ... }: { ${allowed} }\n`), 'Allow reboots')
  await upgrades(scene, vm, { outcome: 'upgraded' })
  await world.config.commit(
    module(vm, `{ lib, ... }: { ${allowed} ${stage} }\n`),
    'Another first stage',
  )
  const before = await vm.bootId()
  await vm.root(`systemctl start --no-block ${vm.subject.unit}.service`)
  const seconds = await rebootsByItself(scene, before, into)
  if (vm.subject.status === undefined) return { toplevel: await vm.running(), seconds }
  const status = await vm.status()
  scene.check('the upgrade before the reboot succeeded', 'upgraded', status?.outcome ?? undefined)
  scene.check('status.json says that the host reboots', /\brebooting\b/, status?.reason)
  return { toplevel: deployedBy(scene, status).toplevel, seconds }
}

import type { Scene, TrialCase } from './family.ts'
import { told } from './told.ts'
import {
  armed,
  becomesGolden,
  boots,
  bootStatus,
  comes,
  failedTrials,
  failsTrial,
  harmless,
  notUp,
  panics,
  validated,
} from './trial.ts'

/** Hosts whose boot loader counts how often it has tried an entry, as NixOS does from 26.11 on. */
export const bootCounting: TrialCase[] = [
  {
    name: 'counted',
    title:
      'the boot loader counts tries and prefers the newest entry: a trial that fails is booted once, and one that was never started goes on trial again',
    own: true,
    limit: 500,
    ends: 'any',
    run: counted,
  },
]

/**
 * What an installer with boot counting leaves behind: three tries in the file name of an entry that was never
 * booted, and the `preferred` line in loader.conf, which overrides the default in the EFI variables.
 */
const counts = `{ lib, options, pkgs, ... }: {
  config = lib.optionalAttrs (!(options.boot.loader.systemd-boot ? bootCounting)) {
    boot.loader.systemd-boot.extraInstallCommands = lib.mkBefore ''
      cd /boot/loader/entries
      \${pkgs.coreutils}/bin/rm -f nixos-generation-*+*.conf
      mine=
      for entry in nixos-generation-*.conf; do
        [[ $(<"$entry")' ' != *"init=$1/init"[[:space:]]* ]] || mine=$entry
      done
      {
        while IFS= read -r line; do [[ $line == preferred* ]] || echo "$line"; done <../loader.conf
        echo "preferred $mine"
      } >../loader.conf.lab
      \${pkgs.coreutils}/bin/mv ../loader.conf.lab ../loader.conf
      [[ $1 -ef /run/booted-system ]] || \${pkgs.coreutils}/bin/mv "$mine" "''\${mine%.conf}+3.conf"
    '';
  };
}`

async function counted(scene: Scene): Promise<void> {
  const { vm, check } = scene
  const entryOf = async (toplevel: string): Promise<string> => {
    const find = `cd /boot/loader/entries && grep -l 'init=${toplevel}/init' nixos-*.conf`
    return vm.ask(find, { allow: 'any' })
  }
  const preferred = (): Promise<string> =>
    vm.ask(`sed -n 's/^preferred *//p' /boot/loader/loader.conf`)

  const bad = await armed(scene, vm, `{ imports = [ (${counts}) (${panics}) ]; }`)
  check(
    'the boot entry of the trial counts its tries',
    /^nixos-[^+]+\+3\.conf$/,
    await entryOf(bad),
  )
  check('golden is preferred to the trial', /^golden-\S+\.conf$/, await preferred())
  await failsTrial(scene, vm, bad, notUp)

  const good = await armed(scene, vm, `{ imports = [ (${counts}) (${harmless}) ]; }`)
  check(
    'the boot entry of the trial counts its tries',
    /^nixos-[^+]+\+3\.conf$/,
    await entryOf(good),
  )
  // as if a person chose another entry in the boot menu: no shutdown runs before that
  const { goldenEntry } = await bootStatus(scene, vm)
  await vm.root(`bootctl set-oneshot '${goldenEntry}' && sync`)
  const before = await vm.bootId()
  await vm.cutPower()
  await vm.powerOn()
  await vm.awaitBoot(before, { limit: 120 })
  await comes(scene, vm, 'golden is validated', 90, validated)
  check(
    'a trial that was never started is on trial again',
    good,
    (await bootStatus(scene, vm))['trial'],
  )
  const held = await vm.ask(`grep -c ^${good} ${failedTrials}`, { allow: 'any' })
  check('a trial that was never started is not listed as failed', '0', held)

  scene.ends(vm, good)
  await boots(scene, vm, 'the trial boots', good)
  await becomesGolden(scene, vm, good)
  // on NixOS, systemd takes the counter off the name of an entry that booted well
  const marks = 'test -e /etc/systemd/system/systemd-bless-boot.service && echo true'
  const counter = (await vm.ask(marks, { allow: 'any' })) === 'true' ? '' : String.raw`\+2-1`
  if (counter === '') {
    const marked = 'systemctl is-active --quiet systemd-bless-boot.service'
    await comes(scene, vm, 'systemd marks the boot as good', 60, marked)
  }
  const entry = await entryOf(good)
  const name = new RegExp(`^nixos-[^+]+${counter}[.]conf$`)
  check('the boot loader has counted the start of the trial', name, entry)
  await told(scene, vm, 'unpin-golden')
  check(
    'without golden the profile is preferred',
    entry.replace(/\+.*/, '.conf'),
    await preferred(),
  )
  await told(scene, vm, 'pin-golden')
  check('golden is preferred again after a pin', /^golden-\S+\.conf$/, await preferred())
}

/** Compares system.autoUpgrade of the embedded guest with NixOS's: options, unit, and what the script does. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { findNixOS, lab } from './evaluate.ts'

interface Upgrades {
  options: string[]
  unit: Record<string, unknown>
  timer: Record<string, unknown>
  /** One for each of the settings below. */
  scripts: string[]
}

const window = (lower: string, upper: string): string =>
  `allowReboot = true; rebootWindow = { lower = "${lower}"; upper = "${upper}"; };`
const settings = [
  'operation = "switch";',
  'operation = "boot"; upgrade = false; flags = [ "--show-trace" ];',
  'allowReboot = true;',
  window('01:00', '05:00'),
  window('23:00', '06:00'),
]

const read = `host: let
  with' = more: (host.extendModules { modules = [ { system.autoUpgrade = {
    enable = true; flake = "git://git.lab/config.git"; randomizedDelaySec = "5min"; } // more; } ]; }).config;
  config = with' { };
  service = config.systemd.services.nixos-upgrade;
in {
  options = builtins.attrNames host.options.system.autoUpgrade;
  unit = {
    inherit (service) restartIfChanged startAt after wants description;
    stays = service.unitConfig.X-StopOnRemoval;
    type = service.serviceConfig.Type;
    home = service.environment.HOME;
  };
  timer = config.systemd.timers.nixos-upgrade.timerConfig;
  scripts = map (more: (with' more).systemd.services.nixos-upgrade.script) [ ${settings.map((one) => `{ ${one} }`).join(' ')} ];
}`

/** The actions of a script at a time of day, on a host whose first stage has `changed` or not. */
function does(script: string, time: string, changed: boolean): string[] {
  const dir = mkdtempSync(join(tmpdir(), 'upgrade-'))
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  const stub = (name: string, text: string): void => {
    writeFileSync(join(dir, name), `#!/bin/bash\n${text}\n`)
    chmodSync(join(dir, name), 0o755)
  }
  stub('nixos-rebuild', 'echo "nixos-rebuild $*"')
  stub('date', `echo ${time}`)
  stub('readlink', `case $1 in /run/*) echo old ;; *) echo ${changed ? 'new' : 'old'} ;; esac`)
  for (const name of ['shutdown', 'systemd-run']) stub(name, 'echo reboot')
  // call programs by name only, so that the stubs are found
  const plain = script.replaceAll(/\/(?:nix\/store\/[^/\s]+|run\/current-system\/sw)\/bin\//g, '')
  const said = execFileSync('bash', ['--norc', '-ec', plain], {
    env: { PATH: `${dir}:/usr/bin:/bin` },
    encoding: 'utf8',
  })
  return said.trim().split('\n')
}

/** A host's own flags come before or after the module's, depending on the order of its files. */
const inAnyOrder = (line: string): string => line.split(' ').toSorted().join(' ')

const flags = '--refresh --flake git://git.lab/config.git'

test('its script rebuilds, and reboots only in the reboot window', async () => {
  const { scripts } = await lab<Upgrades>('sorrow', read)
  const [plain, boot, reboots, early, night] = scripts as [string, string, string, string, string]
  expect(does(plain, '12:00', true)).toEqual([`nixos-rebuild switch ${flags} --upgrade`])
  const own = does(boot, '12:00', true).map(inAnyOrder)
  expect(own).toEqual([inAnyOrder(`nixos-rebuild boot --show-trace ${flags}`)])
  const rebuilt = `nixos-rebuild boot ${flags} --upgrade`
  expect(does(reboots, '12:00', true)).toEqual([rebuilt, 'reboot'])
  expect(does(reboots, '12:00', false)).toEqual([rebuilt, `nixos-rebuild switch ${flags}`])
  const waits = [rebuilt, 'Outside of configured reboot window, skipping.']
  expect(does(early, '03:00', true)).toEqual([rebuilt, 'reboot'])
  expect(does(early, '06:00', true)).toEqual(waits)
  expect(does(night, '23:30', true)).toEqual([rebuilt, 'reboot'])
  expect(does(night, '02:00', true)).toEqual([rebuilt, 'reboot'])
  expect(does(night, '12:00', true)).toEqual(waits)
})

test('its options and its script’s steps are the same as on NixOS', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const theirs = await found.nixos<Upgrades>('sorrow', read)
  const ours = await lab<Upgrades>('sorrow', read)
  expect(ours.options).toEqual(theirs.options)
  expect(ours.unit).toEqual(theirs.unit)
  expect(ours.timer).toMatchObject({ RandomizedDelaySec: '5min', Persistent: true })
  for (const key of ['RandomizedDelaySec', 'FixedRandomDelay', 'Persistent'])
    expect([key, ours.timer[key]]).toEqual([key, theirs.timer[key]])
  for (const [index, script] of ours.scripts.entries()) {
    for (const time of ['00:30', '03:00', '05:30', '12:00', '23:30']) {
      for (const changed of [true, false]) {
        const said = (text: string): string[] => does(text, time, changed).map(inAnyOrder)
        expect([index, time, changed, said(script)]).toEqual([
          index,
          time,
          changed,
          said(theirs.scripts[index]!),
        ])
      }
    }
  }
}, 600_000)

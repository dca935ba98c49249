/**
 * Upgrade mechanisms other than the lab's, judged from outside on a separate VM: a user's script, complete and with a
 * safety net cut, and NixOS's `system.autoUpgrade` beside the lab's agents.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CaseResult } from '../../lib/report/result.ts'
import type { Row } from '../../lib/scenario/matrix.ts'
import { changeHost, copyFlake } from '../flake-copy.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
let flake: string
beforeAll(() => {
  lab = makeLab()
  flake = copyFlake(lab.dir)
})
afterAll(() => lab.remove())

const takeBack = `
taken_back() {
  echo "taking $new back"
  nix-env --profile "$profile" --rollback
  "$old/bin/switch-to-configuration" switch || true
  exit 1
}`

/** A script such as users write themselves. @param onFailure what it does when a switch has failed */
const script = (onFailure: string): string => `
profile=/nix/var/nix/profiles/system mirror=/var/lib/pull.git
${onFailure}
exec 9>/run/pull.lock
flock --nonblock 9 || exit 0
[ -d "$mirror" ] || git init --quiet --bare "$mirror"
git -C "$mirror" fetch --quiet https://git.example.org/me/config.git refs/heads/main:refs/heads/next || exit 0
old=$(readlink -f "$profile")
url="git+file://$mirror?ref=refs/heads/next&rev=$(git -C "$mirror" rev-parse refs/heads/next)"
new=$(nix build --no-link --print-out-paths "$url#labConfigurations.$(uname -n).config.system.build.toplevel")
[ "$new" != "$(readlink -f /run/current-system)" ] || exit 0
nix-env --profile "$profile" --set "$new"
"$new/bin/switch-to-configuration" switch || taken_back
sleep 5
[ -z "$(systemctl --failed --quiet --no-legend)" ] || taken_back
`

const module = `{ lib, ... }:
{
  myModules.services.autoUpgrade.enable = lib.mkForce false;
  myModules.system.boot.goldenGeneration.enable = lib.mkForce false;
  systemd.services.pull = {
    serviceConfig.Type = "oneshot";
    restartIfChanged = false;
    path = [ "/run/current-system/sw" ];
    environment.HOME = "/root";
    startAt = "hourly";
    script = builtins.readFile ./pull.sh;
  };
}
`

/** Puts the script into the flake and declares it to the lab. */
function pull(onFailure: string): void {
  lab.env['LAB_FLAKE'] = flake
  writeFileSync(join(flake, 'hosts/sorrow/pull.sh'), script(onFailure))
  changeHost(flake, 'sorrow', module)
  writeFileSync(
    join(flake, 'lab.toml'),
    `[upgrade]
kind = "unit"
unit = "pull"
remote = "https://git.example.org/me/config.git"
promises = ["deploy", "refuse", "offline", "rollback"]
`,
  )
}

async function judged(...cases: string[]): Promise<Record<string, [string, string]>> {
  const flags = cases.flatMap((name) => ['--case', name])
  const { stdout, stderr } = await lab.task(
    'pipelines/gitops',
    ...['--json', '--host', 'sorrow', '--seed', '7', ...flags],
  )
  expect(stdout, stderr).not.toBe('')
  const { results } = JSON.parse(stdout) as { results: CaseResult[] }
  return Object.fromEntries(results.map((one) => [one.case, [one.state, one.reason]]))
}

test('in a comparison with system.autoUpgrade, promises that only one side makes are n/a for the other', async () => {
  const { code, stdout, stderr } = await lab.task(
    'compare',
    ...['--json', '--host', 'sorrow', '--seed', '7'],
    ...['--case', 'syntax-error', '--case', 'unit-fails'],
  )
  expect(stdout, stderr).not.toBe('')
  const { promises } = JSON.parse(stdout) as { promises: Row[] }
  const seen = promises.map(({ promise, by }) => [
    promise,
    ...Object.values(by).map(({ state, promised }) => `${state} ${promised}`),
  ])
  const cases = promises.flatMap(({ by }) => Object.values(by).flatMap(({ cases: each }) => each))
  const reasons = cases.map((one) => `${one.case}: ${one.state} ${one.reason}`).join('\n')
  expect(seen, `${reasons}\n${stderr}`).toEqual([
    ['refuse', 'held true', 'held true'],
    ['rollback', 'held true', 'n/a false'],
  ])
  expect(code).toBe(0)
})

test('a user’s own script is judged only by the promises that it makes', async () => {
  pull(takeBack)
  const asked = ['good-commit', 'build-error', 'unit-fails', 'chaos-network/cut', 'known-bad']
  const found = await judged(...asked, 'panic')
  expect(found).toEqual({
    cut: ['passed', ''],
    'good-commit': ['passed', ''],
    'build-error': ['passed', ''],
    'unit-fails': ['passed', ''],
    'known-bad': ['skipped', 'n/a: pull.service does not promise it (memory)'],
    panic: ['skipped', 'n/a: pull.service does not promise it (fallback)'],
  })
})

test('the same script without its rollback fails', async () => {
  pull('taken_back() { exit 0; }')
  const { 'unit-fails': found } = await judged('unit-fails')
  expect(found![0]).toBe('failed')
  expect(found![1]).toMatch(/the unit ends: expected .*, found success/)
})

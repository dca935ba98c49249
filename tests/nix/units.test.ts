import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS } from './evaluate.ts'

interface Entry {
  name: string
  value: string
}

/** sorrow with every agent enabled, so that all their units are ordered against each other. */
const everything = '{ myModules.services.chezmoiSync.enable = true; }'
const agents = [
  'golden-boot-validation',
  'golden-trial-deadline',
  'nix-local-upgrade',
  'chezmoi-pre-update',
]

/** systemd's messages about ordering cycles of these units and its own; empty when there are none. */
async function cycles(files: Entry[], links: Entry[]): Promise<string[]> {
  const directory = mkdtempSync(join(tmpdir(), 'lab-units-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const place = (name: string): string => {
    mkdirSync(dirname(join(directory, name)), { recursive: true })
    return join(directory, name)
  }
  for (const { name, value } of files) writeFileSync(place(name), value)
  // NixOS may want a unit twice
  for (const [name, value] of new Map(links.map((link) => [link.name, link.value]))) {
    symlinkSync(value, place(name))
  }
  const { stdout, stderr } = await run(
    'systemd-analyze',
    [
      ...['verify', '--man=no', 'multi-user.target', 'boot-complete.target', 'emergency.target'],
      ...['nix-local-upgrade.timer', 'golden-trial-deadline.timer'],
    ],
    // the units' programs are not on this machine, but only the order matters
    { env: { SYSTEMD_UNIT_PATH: `${directory}:/usr/lib/systemd/system` }, allow: [1] },
  )
  return `${stdout}\n${stderr}`.split('\n').filter((line) => /cycl/i.test(line))
}

/** The units as the embedded guest gets them. */
const embedded = (): Promise<{ files: Entry[]; links: Entry[] }> =>
  expression(
    `let host = lab.labSystem { hostname = "sorrow"; modules = [ ${everything} ]; };
      units = import ${project}/nix/lab/guest/units.nix { inherit (host) lib pkgs; hashText = _: ""; };
      system = units.system host.config.systemd;
    in { inherit (system) files links; }`,
  )

test("The embedded guest's units have no ordering cycle", async () => {
  const { files, links } = await embedded()
  for (const agent of agents) expect(files.map(({ name }) => name)).toContain(`${agent}.service`)
  expect(await cycles(files, links)).toEqual([])
})

test('A cycle would be found', async () => {
  const { files, links } = await embedded()
  const value = '[Unit]\nAfter=golden-boot-validation.service\n'
  const looped = [...files, { name: 'sshd.service.d/loop.conf', value }]
  expect(await cycles(looped, links)).not.toEqual([])
})

test("NixOS's units have none either", async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const { files, links } = await found.nixos<{ files: Entry[]; links: Entry[] }>(
    'sorrow',
    `host: let
      units = (host.extendModules { modules = [ ${everything} ]; }).config.systemd.units;
      names = builtins.filter (n: units.\${n}.enable && units.\${n}.text or null != null) (builtins.attrNames units);
      wants = kind: n: map (t: { name = "\${t}.\${kind}/\${n}"; value = "../\${n}"; });
    in {
      files = map (n: { name = n; value = builtins.unsafeDiscardStringContext units.\${n}.text; }) names;
      links = builtins.concatMap (n: wants "wants" n units.\${n}.wantedBy ++ wants "requires" n units.\${n}.requiredBy) names;
    }`,
  )
  for (const agent of agents) expect(files.map(({ name }) => name)).toContain(`${agent}.service`)
  expect(await cycles(files, links)).toEqual([])
}, 300_000)

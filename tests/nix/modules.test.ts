import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS, refusal, text } from './evaluate.ts'

type Outcome = { value: unknown } | { failed: true }

const recorded = JSON.parse(text('modules/expected.snap')) as Record<string, Outcome>
const cases = text('modules/cases.nix')
// --apply cannot refer to paths, so the file is passed as text
const shared = `builtins.toFile "shared.nix" ${JSON.stringify(text('modules/shared.nix'))}`

/** The configuration that results from modules. */
const config = (modules: string): string =>
  `let inherit (lab.lib) mkOption types; in (lab.lib.evalModules { modules = [ ${modules} ]; }).config`

/** The value at `read` in the configuration of this host. */
const system = (host: string, read: string): string =>
  `(lab.labSystem { hostname = "x"; host = ${host}; }).config.${read}`

/** An expression over the lab's `pkgs`. */
const pkgs = (body: string): string =>
  `let inherit ((lab.labSystem { hostname = "sorrow"; })) pkgs lib; in ${body}`

test('The lab evaluates every case as nixpkgs did when it was recorded', async () => {
  const path = join(project, 'tests/nix/modules/shared.nix')
  const ours = await expression<Record<string, Outcome>>(
    `(${cases}) { inherit (lab) lib; shared = ${path}; }`,
  )
  expect(ours).toEqual(recorded)
})

test('The recorded results are those of the present nixpkgs', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const theirs = await found.nixos(
    'sorrow.lib',
    `lib: (${cases}) { inherit lib; shared = ${shared}; }`,
  )
  // `vitest -u` records them again
  await expect(`${JSON.stringify(theirs, null, 1)}\n`).toMatchFileSnapshot('modules/expected.snap')
}, 300_000)

describe('Errors name the option and the file', () => {
  const declared = '{ _file = "decl.nix"; options.a.x = mkOption { type = types.int; }; }'

  test.each([
    ['type', '{ _file = "f.nix"; a.x = "s"; }', ["`a.x'", 'signed integer', '`f.nix\': "s"']],
    [
      'conflict',
      '{ _file = "f.nix"; a.x = 1; } { _file = "g.nix"; a.x = 2; }',
      ["`a.x' has conflicting", "`f.nix': 1", "`g.nix': 2"],
    ],
    ['no value', '', ["`a.x' was accessed but has no value defined"]],
    ['unknown', '{ _file = "f.nix"; a.x = 1; a.y = 1; }', ["`a.y' does not exist", "`f.nix': 1"]],
    [
      'declared twice',
      '{ _file = "g.nix"; options.a.x = mkOption { type = types.str; }; config.a.x = 1; }',
      ["`a.x'", "`decl.nix'", 'already declared', "`g.nix'"],
    ],
  ])('%s', async (_, modules, words) => {
    const said = await refusal(config(`${declared} ${modules}`))
    for (const word of words) expect(said).toContain(word)
  })
})

describe('Paths that nothing declares', () => {
  const identity = 'hostSpec = { hostName = "x"; primaryUsername = "me"; };'

  test('are merged by their shape', async () => {
    const host = `{ lib, config, ... }: { ${identity}
      imports = [ { services.foo = { list = [ 1 ]; deep.a = 1; word = lib.mkDefault "low"; }; } ];
      services.foo = lib.mkMerge [
        (lib.mkIf config.services.foo.on { list = [ 2 ]; deep.b = lib.mkForce 2; })
        (lib.mkIf (!config.services.foo.on) { list = [ 3 ]; })
        { on = true; word = "high"; list = lib.mkBefore [ 0 ]; deep.b = 1; }
      ];
    }`
    expect(await expression(system(host, 'services.foo'))).toEqual({
      deep: { a: 1, b: 2 },
      list: [0, 1, 2],
      on: true,
      word: 'high',
    })
  })

  test('must agree where they are neither sets nor lists', async () => {
    const host = `{ ${identity} imports = [ { _file = "f.nix"; services.foo.word = "a"; } { _file = "g.nix"; services.foo.word = "b"; } ]; }`
    const said = await refusal(system(host, 'services.foo.word'))
    expect(said).toContain("`services.foo.word' has conflicting definition values")
    expect(said).toContain("`f.nix'")
  })

  test('are refused below names that are not those of NixOS', async () => {
    const typo = `{ ${identity} myModules.services.autoUpgrade.enabel = true; }`
    expect(await refusal(system(typo, 'networking.hostName'))).toContain(
      "`myModules.services.autoUpgrade.enabel' does not exist",
    )
    const stray = `{ ${identity} stylix.enable = true; }`
    expect(await refusal(system(stray, 'networking.hostName'))).toContain("`stylix' does not exist")
  })

  test('are accepted below names that the flake opens', async () => {
    const body = `(lab.labSystem { hostname = "x"; openNames = [ "stylix" ]; host = { ${identity} stylix.enable = true; }; }).config.stylix`
    expect(await expression(body)).toEqual({ enable: true })
  })
})

describe('Packages', () => {
  test('are directories of the image', async () => {
    expect(await expression(pkgs('["${pkgs.git}/bin/git" (lib.getExe pkgs.jujutsu)]'))).toEqual([
      '/lab/packages/git/bin/git',
      '/lab/packages/jujutsu/bin/jj',
    ])
  })

  test('that Debian lacks can be listed, and say why they cannot be used', async () => {
    expect(await expression(pkgs('map (p: p.meta.unavailable) [ pkgs.tailscale ]'))).toEqual([
      'Debian carries no tailscale',
    ])
    expect(await refusal(pkgs('"${pkgs.tailscale}/bin/tailscale"'))).toContain(
      'Package `tailscale` cannot be used in the lab: Debian carries no tailscale',
    )
  })

  test('that the image does not carry cannot be used either', async () => {
    expect(await expression(pkgs('pkgs.htop.meta.unavailable'))).toContain('htop')
  })
})

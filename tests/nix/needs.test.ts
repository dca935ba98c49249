import { expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS, lab } from './evaluate.ts'

test('A program that is too old causes a warning, and one of unknown version none', async () => {
  const pkgs = `{ jujutsu.version = "0.35.0"; chezmoi.version = "2.66.0"; git = { }; }`
  const oldest = `{ jujutsu = "0.36"; chezmoi = "2.66"; git = "2.45"; }`
  const warnings = `import ${project}/nix/modules/needs.nix { inherit (lab) lib; pkgs = ${pkgs}; } "dotfiles" ${oldest}`
  expect(await expression<string[]>(warnings)).toEqual([
    'dotfiles needs jujutsu 0.36 or newer, and this host has 0.35.0',
  ])
})

test('A directory that a reboot empties causes a warning, and one on its own mount none', async () => {
  const warned = (fileSystems: string, more = ''): Promise<string[]> =>
    expression<string[]>(
      `import ${project}/nix/modules/kept.nix { inherit (lab) lib; config = { fileSystems = ${fileSystems}; ${more} }; } "golden" [ "/var/lib/golden" ]`,
    )
  const root = '"/".fsType = "tmpfs";'
  expect(await warned(`{ ${root} }`)).toEqual([
    expect.stringMatching(/^golden keeps what it knows in \/var\/lib\/golden, which is in memory/),
  ])
  // a mount whose path is only a string prefix does not count
  expect(await warned(`{ ${root} "/var/lib/gold".fsType = "ext4"; }`)).toHaveLength(1)
  expect(await warned(`{ ${root} "/var/lib/golden" = { fsType = "none"; }; }`)).toEqual([])
  expect(await warned(`{ ${root} "/var".fsType = "ext4"; }`)).toEqual([])
  const mount = 'systemd.mounts = [ { where = "/var/lib/golden"; } ];'
  expect(await warned(`{ ${root} }`, mount)).toEqual([])
  expect(await warned('{ "/".fsType = "ext4"; }')).toEqual([])
})

test('The hosts have the versions that their agents need', async () => {
  expect(await lab<string[]>('sorrow.config.warnings')).toEqual([])
})

test('On NixOS both agents warn about old programs of their host', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const older = `host: (host.extendModules { modules = [ {
    nixpkgs.overlays = [ (_: before: { jujutsu = before.jujutsu // { version = "0.35.0"; }; }) ];
  } ]; }).config.warnings`
  const said = 'needs jujutsu 0.36 or newer, and this host has 0.35.0'
  expect(await found.nixos<string[]>('sorrow', older)).toEqual(
    expect.arrayContaining([
      `myModules.services.autoUpgrade ${said}`,
      `myModules.services.chezmoiSync ${said}`,
    ]),
  )
}, 300_000)

test('On NixOS each of the agents warns about a root in memory', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const inMemory = `host: (host.extendModules { modules = [ ({ lib, ... }: {
    fileSystems."/" = lib.mkForce { device = "none"; fsType = "tmpfs"; };
  }) ]; }).config.warnings`
  const warnings = await found.nixos<string[]>('sorrow', inMemory)
  for (const directory of ['golden-generation', 'nix-local-upgrade', 'chezmoi-sync'])
    expect(warnings).toContainEqual(expect.stringContaining(`in /var/lib/${directory}, which`))
}, 300_000)

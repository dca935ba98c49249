import { expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS, lab } from './evaluate.ts'

test('A program that is too old is a warning, and one of an unknown version none', async () => {
  const pkgs = `{ jujutsu.version = "0.35.0"; chezmoi.version = "2.66.0"; git = { }; }`
  const oldest = `{ jujutsu = "0.36"; chezmoi = "2.66"; git = "2.45"; }`
  const warnings = `import ${project}/nix/modules/needs.nix { inherit (lab) lib; pkgs = ${pkgs}; } "dotfiles" ${oldest}`
  expect(await expression<string[]>(warnings)).toEqual([
    'dotfiles needs jujutsu 0.36 or newer, and this host has 0.35.0',
  ])
})

test('The hosts have what their agents need', async () => {
  expect(await lab<string[]>('sorrow.config.warnings')).toEqual([])
})

test('On NixOS both agents say so of the programs of their host', async (context) => {
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

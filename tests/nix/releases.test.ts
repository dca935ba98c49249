import { describe, expect, test } from 'vitest'
import { findNixOS } from './evaluate.ts'

/**
 * The options used by these modules that a NixOS release does not have, by its release notes: programs.atuin
 * came with 26.05, boot counting with 26.11. All other options that they set are in 25.11. An older release is
 * simulated by removing the option's declaration from the module of the present nixpkgs.
 */
const lacking: Record<string, string[]> = {
  '25.11': ['programs.atuin', 'boot.loader.systemd-boot.bootCounting'],
  '26.05': ['boot.loader.systemd-boot.bootCounting'],
}

const without: Record<string, string> = {
  'programs.atuin': '{ disabledModules = [ "programs/atuin.nix" ]; }',
  'boot.loader.systemd-boot.bootCounting': `({ lib, modulesPath, ... }: let
    file = "system/boot/loader/systemd-boot/systemd-boot.nix";
    # the module itself reads the removed option: give it the value that matches a release without it
    uncounted = config: config // {
      boot = config.boot // {
        loader = config.boot.loader // {
          systemd-boot = config.boot.loader.systemd-boot // { bootCounting = { enable = false; tries = 3; }; };
        };
      };
    };
    module = args: let made = import (modulesPath + "/\${file}") (args // { config = uncounted args.config; }); in
      made // {
        options.boot = made.options.boot // {
          loader = made.options.boot.loader // {
            systemd-boot = removeAttrs made.options.boot.loader.systemd-boot [ "bootCounting" ];
          };
        };
      };
  in {
    disabledModules = [ file ];
    imports = [ (lib.setFunctionArgs module (builtins.functionArgs (import (modulesPath + "/\${file}")))) ];
  })`,
}

interface Read {
  declared: boolean[]
  failed: string[]
  warnings: string[]
  toplevel: string
  atuin: boolean
}

describe.each(Object.keys(lacking))('The options of %s', (release) => {
  test.for(['sorrow', 'torment'])(
    'are enough for %s',
    { timeout: 300_000 },
    async (hostname, context) => {
      const found = await findNixOS()
      if ('missing' in found) return context.skip(found.missing)
      const paths = lacking[release]!
      const read = await found.nixos<Read>(
        hostname,
        `host: let
        older = host.extendModules { modules = [ ${paths.map((path) => without[path]).join(' ')} ]; };
      in {
        declared = map (path: older.lib.hasAttrByPath path older.options) [ ${paths
          .map(
            (path) =>
              `[ ${path
                .split('.')
                .map((name) => `"${name}"`)
                .join(' ')} ]`,
          )
          .join(' ')} ];
        failed = map (a: a.message) (builtins.filter (a: !a.assertion) older.config.assertions);
        inherit (older.config) warnings;
        toplevel = older.config.system.build.toplevel.drvPath;
        atuin = builtins.elem "atuin" (map (p: p.pname or "") older.config.environment.systemPackages);
      }`,
      )
      expect(read).toEqual({
        declared: paths.map(() => false),
        failed: [],
        warnings: [],
        toplevel: expect.stringContaining(`nixos-system-${hostname}-`),
        atuin: true,
      })
    },
  )
})

test('Boots are counted if NixOS can, and a switch leaves the unit that blesses a boot alone', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const counted = await found.nixos<{ known: boolean; own: string; off: boolean }>(
    'sorrow',
    `host: let
      known = host.options.boot.loader.systemd-boot ? bootCounting;
      off = if known then host.extendModules { modules = [ { boot.loader.systemd-boot.bootCounting.enable = false; } ]; } else host;
    in {
      inherit known;
      own = host.config.systemd.units."systemd-bless-boot.service".text or "";
      off = off.config.systemd.services ? systemd-bless-boot;
    }`,
  )
  if (!counted.known) return context.skip('the nixpkgs at hand has no boot counting')
  expect(counted.own).toContain('X-RestartIfChanged=false')
  expect(counted.off).toBe(false)
}, 300_000)

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS } from './evaluate.ts'

const text = (name: string): string => readFileSync(join(project, `nix/lab/${name}.nix`), 'utf8')

/** What the lab adds to a host, applied to a host that is only as deep as it is looked at. */
const prepared = (host: string, read: string, imageSize = '"20480M"'): Promise<unknown> =>
  expression(`let
    host = ${host};
    made = (${text('foreign')}) {
      vm = "vm";
      disko = _: { nixosModules.disko = "disko"; };
      imageSize = ${imageSize};
      emulated = false;
    } host;
    names = map (module: if builtins.isString module then module else builtins.typeOf module) made.modules;
  in ${read}`)

/** A host with one disk of disko's, whose root holds `content`. */
const withDisk = (content: string, options = 'disko = { };'): string =>
  withTable(
    `{
      type = "gpt";
      partitions = {
        ESP = { type = "EF00"; content.type = "filesystem"; };
        root = { type = "8300"; content = ${content}; };
      };
    }`,
    options,
  )

const withTable = (content: string, options = 'disko = { };'): string => `{
  options = { ${options} };
  extendModules = { modules }: { inherit modules; };
  config = {
    boot.loader.systemd-boot.enable = true;
    services.openssh = { ports = [ 22 ]; settings = { }; };
    disko.devices.disk.main.content = ${content};
  };
}`

describe('A host of another flake gets', () => {
  test('what the lab needs, and keeps a disk that boots by itself', async () => {
    expect(await prepared(withDisk('{ type = "btrfs"; }'), 'names')).toEqual([
      'vm',
      'lambda',
      'lambda',
    ])
  })

  test.each(['{ type = "luks"; }', '{ type = "zfs"; pool = "tank"; }'])(
    "the lab's own disk in place of %s",
    async (content) => {
      expect(await prepared(withDisk(content), 'names')).toEqual([
        'vm',
        'lambda',
        'lambda',
        'lambda',
      ])
    },
  )

  test.each([
    // an MBR, whose partitions disko has as a list
    '{ type = "table"; format = "msdos"; partitions = [ { content = { type = "btrfs"; }; } ]; }',
    '{ type = "btrfs"; }',
    'null',
  ])("the lab's own disk where theirs holds %s", async (content) => {
    expect(await prepared(withTable(content), 'names')).toEqual([
      'vm',
      'lambda',
      'lambda',
      'lambda',
    ])
  })

  test('disko, where it has none', async () => {
    const host = `{ options = { }; config = { boot.loader.systemd-boot.enable = true; };
      extendModules = { modules }: { inherit modules; }; }`
    expect(await prepared(host, 'names')).toEqual(['vm', 'lambda', 'lambda', 'disko', 'lambda'])
  })

  test('no disko where no image is wanted, as nothing is to be fetched for that', async () => {
    const host = `{ options = { }; config = { boot.loader.systemd-boot.enable = true; };
      extendModules = { modules }: { inherit modules; }; }`
    expect(await prepared(host, 'names', 'null')).toEqual(['vm', 'lambda', 'lambda'])
  })

  test('nothing twice: one of this flake has it all by its role', async () => {
    const host = withDisk('{ type = "btrfs"; }', 'disko = { }; lab.vm = { };')
    expect(await prepared(host, 'names')).toEqual(['lambda'])
  })
})

test('On NixOS the lab finds its three NICs, its key and its identity, and builds an image', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const read = await found.nixos<Record<string, unknown>>(
    'sorrow',
    `host: let inherit (host) config; in {
      rules = config.services.udev.extraRules;
      keys = config.services.openssh.authorizedKeysFiles;
      hostKeys = map (key: key.path) config.services.openssh.hostKeys;
      denied = config.networking.dhcpcd.denyInterfaces;
      credential = builtins.elem "qemu_fw_cfg" config.boot.initrd.availableKernelModules;
      layout = config.fileSystems."/".options;
      size = config.disko.devices.disk.main.imageSize;
      swap = config.swapDevices;
      identity = config.system.activationScripts."00-lab-identity".text;
      ordered = let
        at = needle: builtins.stringLength (builtins.head (builtins.split needle config.system.activationScripts.script));
      in at "00-lab-identity" < at "snippet users";
    }`,
  )
  expect(read).toMatchObject({
    hostKeys: ['/etc/ssh/ssh_host_ed25519_key'],
    credential: true,
    size: '20G',
    swap: [],
    ordered: true,
  })
  expect(read['rules']).toMatch(/ATTR\{address\}=="52:54:00:01:\*", NAME="mgmt"/)
  expect(read['rules']).toMatch(/ATTR\{address\}=="52:54:00:03:\*", NAME="lan"/)
  expect(read['keys']).toContain('/etc/ssh/lab_keys.d/%u')
  expect(read['denied']).toEqual(expect.arrayContaining(['mgmt', 'uplink', 'lan']))
  expect(read['layout']).toContain('subvol=@root')
  expect(read['identity']).toContain('/run/credentials/@system/tmpfiles.extra')
}, 300_000)

test("On NixOS a host of another flake boots without its own machine's disks, files and addresses", async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const read = await found.nixos<Record<string, unknown>>(
    'sorrow',
    `known: let
      foreign = import (known.pkgs.path + "/nixos/lib/eval-config.nix") {
        system = "x86_64-linux";
        modules = [
          ({ lib, ... }: {
            system.stateVersion = "25.11";
            networking.hostName = "other";
            boot.loader.limine.enable = true;
            boot.initrd.luks.devices.crypt.device = "/dev/disk/by-partlabel/crypt";
            fileSystems."/" = { device = "/dev/mapper/crypt"; fsType = "ext4"; };
            # what empties a root at each boot, by its disk
            boot.initrd.systemd.enable = true;
            boot.initrd.systemd.services.fresh-root = {
              wantedBy = [ "initrd.target" ];
              requires = [ "dev-mapper-crypt.device" ];
              before = [ "sysroot.mount" ];
              script = "false";
            };
            # what unlocks the disk of a machine from afar
            boot.initrd.network = {
              enable = true;
              ssh = { enable = true; hostKeys = [ "/etc/secrets/initrd_key" ]; authorizedKeys = [ "ssh-ed25519 AAAA" ]; };
            };
            services.openssh = {
              enable = true;
              startWhenNeeded = true;
              listenAddresses = [ { addr = "100.64.0.7"; } ];
              settings = { AllowUsers = [ "mia" ]; AllowGroups = [ "wheel" ]; };
            };
          })
        ];
      };
      with_ = disko: imageSize: (${text('foreign')}) {
        vm = (${text('vm')});
        disko = _: { nixosModules = { inherit disko; }; };
        inherit imageSize;
        emulated = false;
      } foreign;
      host = with_ (throw "disko is not wanted here") null;
      # that of the lab's own flake
      disko = builtins.head known.options.disko.devices.declarations;
      inherit (host) config;
    in {
      installed = (with_ disko "20480M").config.system.build.toplevel.drvPath == config.system.build.toplevel.drvPath;
      failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
      toplevel = config.system.build.toplevel.drvPath;
      loader = [ config.boot.loader.limine.enable config.boot.loader.systemd-boot.enable ];
      secrets = builtins.attrNames config.boot.initrd.secrets;
      # 'system' above is all that says it
      platform = ((${text('facts')}) { user = null; units = { }; } host).platform;
      root = config.fileSystems."/".device;
      luks = config.boot.initrd.luks.devices;
      early = config.boot.initrd.systemd.services.fresh-root.enable;
      sshd = {
        inherit (config.services.openssh) listenAddresses startWhenNeeded;
        inherit (config.services.openssh.settings) AllowUsers AllowGroups;
      };
    }`,
  )
  expect(read).toEqual({
    failed: [],
    // what disko installs into an image is what runs
    installed: true,
    toplevel: expect.stringContaining('nixos-system-other-'),
    loader: [false, true],
    secrets: [],
    platform: 'x86_64-linux',
    root: '/dev/disk/by-partlabel/disk-main-root',
    luks: {},
    early: false,
    sshd: {
      listenAddresses: [],
      startWhenNeeded: false,
      AllowUsers: expect.arrayContaining(['mia', 'root']),
      AllowGroups: expect.arrayContaining(['wheel', 'root']),
    },
  })
}, 300_000)

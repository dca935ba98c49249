import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { expression, findNixOS } from './evaluate.ts'

const text = (name: string): string => readFileSync(join(project, `nix/lab/${name}.nix`), 'utf8')

/** The modules that the lab adds to a host; `host` has only the attributes that are read. */
const prepared = (host: string, disko = 'null'): Promise<unknown> =>
  expression(`let
    host = ${host};
    made = (${text('foreign')}) {
      vm = "vm";
      remotes = (${text('remotes')});
      disk = (${text('disk')});
      disko = ${disko};
    } host;
    name = module: if builtins.isString module then module else builtins.typeOf module;
  in if made ? modules then map name made.modules else "as it is"`)

const disko = `(${text('disko')}) { imageSize = null; emulated = false; }`

/** Nix text of a host with systemd-boot and these mounts; `more` is added to its `config`. */
const mounting = (fileSystems: string, more = '', options = ''): string => `{
  options = { ${options} };
  extendModules = { modules }: { inherit modules; };
  config = {
    boot.loader.systemd-boot.enable = true;
    services.openssh = { ports = [ 22 ]; settings = { }; };
    systemd.package = "/systemd";
    fileSystems = ${fileSystems};
    ${more}
  };
}`

const esp =
  '"/boot" = { device = "/dev/disk/by-partlabel/disk-main-ESP"; fsType = "vfat"; options = [ "umask=0077" ]; };'
const data = (fsType: string, option = 'noatime', device = 'by-uuid/0e1a4d8c'): string =>
  `{ device = "/dev/disk/${device}"; fsType = "${fsType}"; options = [ "${option}" ]; }`
const ext4 = `{ ${esp} "/" = ${data('ext4')}; }`

const layout = (host: string): Promise<unknown> => expression(`(${text('disk')}) (${host}).config`)

describe('A host of another flake gets', () => {
  test('the lab’s modules, and keeps a disk that the lab can make', async () => {
    expect(await prepared(mounting(ext4))).toEqual(['vm', 'lambda'])
  })

  test("the lab's own disk, if the lab cannot make its disk", async () => {
    const luks = mounting(ext4, 'boot.initrd.luks.devices.crypt = { };')
    expect(await prepared(luks)).toEqual(['vm', 'lambda', 'lambda'])
  })

  test('nothing twice: a host of this flake has it all from its role', async () => {
    expect(await prepared(mounting(ext4, '', 'lab.vm = { };'))).toBe('as it is')
  })

  const withDisk = (content: string): string =>
    mounting(
      '{ }',
      `disko.devices.disk.main.content = {
        type = "gpt";
        partitions = {
          ESP = { type = "EF00"; content.type = "filesystem"; };
          root = { type = "8300"; content = ${content}; };
        };
      };`,
      'disko = { };',
    )

  test('the disk of its own disko, if that is requested', async () => {
    expect(await prepared(withDisk('{ type = "btrfs"; }'), disko)).toEqual([
      'vm',
      'lambda',
      'lambda',
    ])
    const passphrase = prepared(withDisk('{ type = "luks"; }'), disko)
    await expect(passphrase).rejects.toMatchObject({
      detail: { evidence: expect.stringContaining('no image of this host') },
    })
    await expect(prepared(mounting(ext4), disko)).rejects.toMatchObject({
      detail: { evidence: expect.stringContaining("this host has no disk of disko's") },
    })
  })
})

describe('The disk that a host mounts', () => {
  test('is found by the names that its file systems have', async () => {
    const swap =
      'swapDevices = [ { device = "/dev/disk/by-label/swap"; } { device = "/swapfile"; } ];'
    expect(await layout(mounting(ext4, swap))).toEqual({
      esp: { by: 'partlabel', name: 'disk-main-ESP' },
      root: { by: 'uuid', name: '0e1a4d8c', fsType: 'ext4', subvolumes: {} },
      swap: [{ by: 'label', name: 'swap' }],
      loader: '/systemd/lib/systemd/boot/efi/systemd-bootx64.efi',
    })
  })

  test('has a subvolume for each mount point of its btrfs, and no disk for file systems in memory', async () => {
    const found = await layout(
      mounting(`{
        ${esp}
        "/" = ${data('btrfs', 'subvol=@root')};
        "/nix" = ${data('btrfs', 'subvol=/@nix')};
        "/tmp" = { device = "tmpfs"; fsType = "tmpfs"; options = [ ]; };
        "/srv" = { device = "/nix/srv"; fsType = "none"; options = [ "bind" ]; };
        "/old" = ${data('xfs', 'noatime', 'by-label/old')} // { enable = false; };
      }`),
    )
    expect(found).toMatchObject({ root: { subvolumes: { '/': '@root', '/nix': '@nix' } } })
  })

  test.each([
    [
      'a second disk',
      `{ ${esp} "/" = ${data('ext4')}; "/home" = ${data('ext4', 'noatime', 'by-label/home')}; }`,
    ],
    ['two of one ext4', `{ ${esp} "/" = ${data('ext4')}; "/home" = ${data('ext4')}; }`],
    [
      'one subvolume twice',
      `{ ${esp} "/" = ${data('btrfs', 'subvol=a')}; "/b" = ${data('btrfs', 'subvol=a')}; }`,
    ],
    ['a subvolume by number', `{ ${esp} "/" = ${data('btrfs', 'subvolid=256')}; }`],
    ['another file system', `{ ${esp} "/" = ${data('xfs')}; }`],
    ['a mapped device', `{ ${esp} "/" = ${data('ext4', 'noatime', '../mapper/crypt')}; }`],
    [
      'a number of a partition',
      `{ ${esp} "/" = { device = "/dev/vda2"; fsType = "ext4"; options = [ ]; }; }`,
    ],
    [
      'a partition of an MBR',
      `{ ${esp} "/" = ${data('ext4', 'noatime', 'by-partuuid/0e1a4d8c-02')}; }`,
    ],
    ['a root in memory', `{ ${esp} "/" = ${data('tmpfs')}; "/nix" = ${data('ext4')}; }`],
    ['no ESP', `{ "/" = ${data('ext4')}; }`],
  ])('is not made with %s', async (_, fileSystems) => {
    expect(await layout(mounting(fileSystems))).toBeNull()
  })

  test.each([
    'boot.initrd.luks.devices.crypt = { };',
    'boot.zfs.extraPools = [ "tank" ];',
    'boot.loader.systemd-boot.xbootldrMountPoint = "/boot2";',
    'boot.resumeDevice = "/dev/disk/by-label/swap";',
    'swapDevices = [ { device = "/dev/disk/by-label/swap"; randomEncryption.enable = true; } ];',
    'swapDevices = [ { device = "/dev/vdb"; } ];',
  ])('is not made if the host waits for something else: %s', async (more) => {
    expect(await layout(mounting(ext4, more))).toBeNull()
  })
})

test('On NixOS the lab finds its three NICs, its key and its identity, and a disk that is made like its own', async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const read = await found.nixos<Record<string, unknown>>(
    'sorrow',
    `host: let inherit (host) config; in {
      # a package is one of lib/udev/rules.d; the text is in its derivation
      rules = builtins.concatStringsSep "" (map (package: package.text or "") (
        builtins.filter (package: package.name or "" == "70-lab-network.rules") config.services.udev.packages));
      keys = config.services.openssh.authorizedKeysFiles;
      hostKeys = map (key: key.path) config.services.openssh.hostKeys;
      denied = config.networking.dhcpcd.denyInterfaces;
      credential = builtins.elem "qemu_fw_cfg" config.boot.initrd.availableKernelModules;
      layout = (${text('disk')}) config;
      login = config.systemd.services.lab-tailscale-login.unitConfig.ConditionPathExists;
      onCommandLine = config.systemd.services.lab-tailscale-login.serviceConfig.ExecStart;
      size = config.disko.devices.disk.main.imageSize;
      swap = config.swapDevices;
      homes = config.systemd.tmpfiles.settings.lab-homes;
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
    homes: { '/home/rain': { d: { mode: ':700', user: ':rain', group: ':users' } } },
  })
  expect(read['rules']).toMatch(/ATTR\{address\}=="52:54:00:01:\*", NAME="mgmt"/)
  expect(read['rules']).toMatch(/ATTR\{address\}=="52:54:00:03:\*", NAME="lan"/)
  expect(read['keys']).toContain('/etc/ssh/lab_keys.d/%u')
  expect(read['denied']).toEqual(expect.arrayContaining(['mgmt', 'uplink', 'lan']))
  expect(read['layout']).toEqual({
    esp: { by: 'partlabel', name: 'disk-main-ESP' },
    root: {
      ...{ by: 'partlabel', name: 'disk-main-root', fsType: 'btrfs' },
      subvolumes: { '/': '@root', '/home': '@home', '/nix': '@nix' },
    },
    swap: [],
    loader: expect.stringMatching(/^\/nix\/store\/\w{32}-systemd-.*systemd-bootx64\.efi$/),
  })
  expect(read['login']).toBe('/run/lab/tailscale-authkey')
  expect(read['onCommandLine']).toContain(' --auth-key=file:/run/lab/tailscale-authkey ')
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
            # a service that empties the root at each boot, and waits for its disk
            boot.initrd.systemd.enable = true;
            boot.initrd.systemd.services.fresh-root = {
              wantedBy = [ "initrd.target" ];
              requires = [ "dev-mapper-crypt.device" ];
              before = [ "sysroot.mount" ];
              script = "false";
            };
            # SSH for unlocking the disk remotely
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
      host = (${text('foreign')}) {
        vm = (${text('vm')}); remotes = (${text('remotes')});
        disk = (${text('disk')});
        disko = null;
      } foreign;
      inherit (host) config;
    in {
      layout = (${text('disk')}) config;
      failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
      toplevel = config.system.build.toplevel.drvPath;
      loader = [ config.boot.loader.limine.enable config.boot.loader.systemd-boot.enable ];
      secrets = builtins.attrNames config.boot.initrd.secrets;
      # known only from the system above
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
    layout: {
      esp: { by: 'partlabel', name: 'disk-main-ESP' },
      root: { by: 'partlabel', name: 'disk-main-root', fsType: 'ext4', subvolumes: {} },
      swap: [],
      loader: expect.stringContaining('systemd-bootx64.efi'),
    },
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

test("On NixOS a disko disk that needs a passphrase is replaced by the lab's", async (context) => {
  const found = await findNixOS()
  if ('missing' in found) return context.skip(found.missing)
  const read = await found.nixos<Record<string, unknown>>(
    'sorrow',
    `known: let
      theirs = known.extendModules { modules = [ ({ lib, ... }: {
        disks.enable = lib.mkForce false;
        disko.devices.disk.main = {
          type = "disk";
          device = "/dev/vda";
          content.type = "gpt";
          content.partitions = {
            ESP = { type = "EF00"; size = "1G"; content = { type = "filesystem"; format = "vfat"; mountpoint = "/boot"; }; };
            root.size = "100%";
            root.content = {
              type = "luks";
              name = "crypt";
              content = { type = "filesystem"; format = "ext4"; mountpoint = "/"; };
            };
          };
        };
      }) ]; };
      made = (${text('foreign')}) { vm = (${text('vm')}); remotes = (${text('remotes')}); disk = (${text('disk')}); disko = null; } theirs;
      layout = (${text('disk')}) made.config;
    in {
      theirs = [ theirs.config.fileSystems."/".device (builtins.attrNames theirs.config.boot.initrd.luks.devices) ];
      made = (${text('disk')}) theirs.config == null;
      inherit (layout) esp root;
      mounted = builtins.attrNames made.config.fileSystems;
      luks = made.config.boot.initrd.luks.devices;
      toplevel = made.config.system.build.toplevel.drvPath;
    }`,
  )
  expect(read).toEqual({
    theirs: ['/dev/mapper/crypt', ['crypt']],
    made: true,
    esp: { by: 'partlabel', name: 'disk-main-ESP' },
    root: { by: 'partlabel', name: 'disk-main-root', fsType: 'ext4', subvolumes: {} },
    mounted: ['/', '/boot'],
    luks: {},
    toplevel: expect.stringContaining('nixos-system-sorrow-'),
  })
}, 300_000)

// a guest has no cache: build tools that are not part of the build's result must be in its store already
test('A NixOS guest has the build tools of its toplevel, first stage and bus', async (context) => {
  const found = await findNixOS()
  if (!('nixos' in found)) return context.skip(found.missing)
  const missing = await found.nixos<string[]>(
    'sorrow',
    `host: let
      c = host.config;
      within = made: (made.nativeBuildInputs or [ ]) ++ (made.buildInputs or [ ]);
      has = map toString (c.system.extraDependencies ++ c.environment.systemPackages);
      inputs = builtins.concatMap within [
        c.system.build.toplevel
        c.system.build.initialRamdisk
        c.system.build.modulesClosure
        c.environment.etc.dbus-1.source
      ];
    in
      assert builtins.length inputs > 5;
      map (p: p.name) (builtins.filter (p: !(builtins.elem (toString p) has)) inputs)`,
  )
  expect(missing).toEqual([])
}, 300_000)

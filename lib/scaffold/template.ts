import { usual, type HostChoices } from './shape.ts'
import { nixString } from '../flake/syntax.ts'

/** Units without which the host cannot be reached: an upgrade that loses them must be rolled back. */
const waysIn: Record<string, string> = { openssh: 'sshd.service', tailscale: 'tailscaled.service' }

/**
 * The texts of a host's two files, by file name.
 * @param main name that the flake uses for the first file
 */
export const hostFiles = (choices: HostChoices, main = 'default.nix'): Record<string, string> => ({
  [main]: defaultNix(choices, '[ ./hardware-configuration.nix ]'),
  'hardware-configuration.nix': hardwareNix(choices, main),
})

/** The same in one file, for flakes in which a host is one file. */
export const hostFile = (choices: HostChoices): string => {
  const hardware = hardwareNix(choices, 'below')
    .trimEnd()
    .replaceAll(/^(?=.)/gm, ' '.repeat(6))
  return defaultNix(choices, `[\n    (\n${hardware}\n    )\n  ]`)
}

function defaultNix(
  { name, user, cli, networking, schedule, layout, device }: HostChoices,
  imports: string,
): string {
  const units = networking.flatMap((service) => waysIn[service] ?? [])
  return `# ${name[0]!.toUpperCase()}${name.slice(1)} - Minimal headless VM for GitOps testing
# Purpose: Test multi-host jj sync, auto-upgrade, and infrastructure features
{ lib, ... }:
{
  imports = ${imports};

  # Disk configuration via nix/modules/disks.nix
  disks = {
    enable = true;
    layout = ${nixString(layout)};
    device = ${nixString(device)};
    withSwap = false;
  };

  # ========================================
  # ROLE SELECTION
  # ========================================
  roles = [ "vm" ]; # Base VM role

  # ========================================
  # MODULE OVERRIDES (remove desktop)
  # ========================================
  # Remove desktop modules for headless operation
  modules.services.desktop = lib.mkForce [ ];
  modules.services.display-manager = lib.mkForce [ ];

  # Keep only essential headless services
  modules.services.cli = ${list(cli, '  ')};
  modules.services.networking = ${list(networking, '  ')};

  # ========================================
  # HOST IDENTITY
  # ========================================
  hostSpec = {
    hostName = ${nixString(name)};
    primaryUsername = ${nixString(user)};
  };

  # ========================================
  # AUTO-UPGRADE (GitOps testing)
  # ========================================
  myModules.services.autoUpgrade = {
    enable = true;
    mode = "local";
    schedule = ${nixString(schedule)};${schedule === usual.schedule ? ' # Frequent for testing' : ''}

    # Safety features (Phase 15-03b)
    buildBeforeSwitch = true;
    # is-active, as is-enabled also passes for a service that crashed
    validationChecks = ${list(
      units.map((unit) => `systemctl --quiet is-active ${unit}`),
      '    ',
    )};
    onValidationFailure = "rollback";
  };

  # ========================================
  # GOLDEN GENERATION (boot safety)
  # ========================================
  myModules.system.boot.goldenGeneration = {
    enable = true;
    validateServices = ${list(units, '    ')};
    autoPinAfterBoot = true;
  };

  # The release whose defaults this host's state was created with; if unset, every evaluation warns
  system.stateVersion = "26.05";
}
`
}

/** @param disks where the disks are configured, for a comment */
function hardwareNix({ name, layout }: HostChoices, disks: string): string {
  const mounts = {
    btrfs: btrfs('/', '@root') + btrfs('/nix', '@nix'),
    ext4: mount('/', 'nixos', 'ext4'),
  }[layout]
  return `# Hardware configuration for ${name} VM
# Generated for QEMU/KVM virtual machine
{
  config,
  lib,
  pkgs,
  modulesPath,
  ...
}:
{
  imports = [ (modulesPath + "/profiles/qemu-guest.nix") ];

  boot.initrd.availableKernelModules = [
    "ata_piix"
    "uhci_hcd"
    "virtio_pci"
    "virtio_scsi"
    "sd_mod"
    "sr_mod"
  ];
  boot.initrd.kernelModules = [ ];
  boot.kernelModules = [ ];
  boot.extraModulePackages = [ ];

  # Filesystems are disko's (see ${disks}); these by-label ones count only where it is off
${mounts}${mount('/boot', 'boot', 'vfat')}  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
}
`
}

const mount = (path: string, label: string, type: string, options = ''): string =>
  `  fileSystems."${path}" = lib.mkDefault {
    device = "/dev/disk/by-label/${label}";
    fsType = "${type}";
${options}  };

`

const btrfs = (path: string, subvolume: string): string =>
  mount(
    path,
    'nixos',
    'btrfs',
    `    options = ${list([`subvol=${subvolume}`, 'compress=zstd', 'noatime'], '    ')};\n`,
  )

/** A list as nixfmt lays it out. */
const list = (texts: string[], indent: string): string =>
  texts.length > 1
    ? `[\n${texts.map((text) => `${indent}  ${nixString(text)}\n`).join('')}${indent}]`
    : `[ ${texts.map((text) => `${nixString(text)} `).join('')}]`

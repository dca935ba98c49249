# A host of any flake as the lab builds it: { vm, disk, disko } -> nixosConfigurations.<host> -> host.
# Text for `nix eval --apply`, so it imports nothing and nothing of theirs is written.
#   vm     the module ./vm.nix
#   disk   the function ./disk.nix
#   disko  null, or how disko makes the disk, as the host has it there: the function ./disko.nix with its arguments
{
  vm,
  disk,
  disko,
}:
host:
let
  inherit (builtins)
    any
    attrNames
    elem
    ;
  inherit (host) config options;
  known = (options.lab or { }) ? vm;

  # what a host of this flake sets by its role
  said = name: (config.services.openssh.settings.${name} or null) != null;
  guest =
    { lib, ... }:
    {
      services.qemuGuest.enable = lib.mkForce true;
      boot.kernelParams = lib.mkAfter [ "console=ttyS0,115200" ];
      services.openssh.ports = lib.mkIf (!(elem 22 config.services.openssh.ports)) [ 22 ];
      # an address of theirs, as a VPN's, is none of this VM's
      services.openssh.listenAddresses = lib.mkForce [ ];
      # a unit that is there, and not one for each connection
      services.openssh.startWhenNeeded = lib.mkForce false;
      services.openssh.settings =
        lib.optionalAttrs (said "AllowUsers") { AllowUsers = [ "root" ]; }
        // lib.optionalAttrs (said "AllowGroups") { AllowGroups = [ "root" ]; };
      # files that lie on their machine alone, such as the host key of an SSH in the first stage: without them
      # the boot loader is not installed
      boot.initrd.secrets = lib.mkForce { };
      boot.initrd.network.ssh.enable = lib.mkForce false;
    };

  # services of the first stage that begin with such a disk, as those do that wipe the root
  early = config.boot.initrd.systemd.services or { };
  begins =
    name:
    let
      service = early.${name};
    in
    any (unit: builtins.match "dev-.*[.]device|systemd-cryptsetup@.*" unit != null) (
      (service.requires or [ ]) ++ (service.bindsTo or [ ]) ++ (service.after or [ ])
    );
  stalled = builtins.filter begins (attrNames early);

  # their file systems are of disks that are not here; what would wait for one is left out with them
  ownDisk =
    { lib, ... }:
    let
      has = path: lib.hasAttrByPath path options;
      off = path: value: lib.optionalAttrs (has path) (lib.setAttrByPath path (lib.mkForce value));
    in
    lib.foldl lib.recursiveUpdate
      {
        fileSystems = lib.mkForce {
          "/" = {
            device = "/dev/disk/by-partlabel/disk-main-root";
            fsType = "ext4";
          };
          "/boot" = {
            device = "/dev/disk/by-partlabel/disk-main-ESP";
            fsType = "vfat";
            options = [ "umask=0077" ];
          };
        };
        swapDevices = lib.mkForce [ ];
        boot.initrd.luks.devices = lib.mkForce { };
        boot.initrd.postDeviceCommands = lib.mkForce "";
        boot.initrd.postResumeCommands = lib.mkForce "";
        boot.initrd.postMountCommands = lib.mkForce "";
        boot.resumeDevice = lib.mkForce "";
        boot.zfs.extraPools = lib.mkForce [ ];
        boot.loader.grub.enable = lib.mkForce false;
        boot.loader.systemd-boot.enable = lib.mkForce true;
        boot.loader.efi.efiSysMountPoint = lib.mkForce "/boot";
      }
      [
        (off [ "disko" "enableConfig" ] false)
        (off [ "boot" "loader" "systemd-boot" "xbootldrMountPoint" ] null)
        (off [ "boot" "lanzaboote" "enable" ] false)
        # each installs itself as the one boot loader
        (off [ "boot" "loader" "generic-extlinux-compatible" "enable" ] false)
        (off [ "boot" "loader" "limine" "enable" ] false)
        (off [ "boot" "loader" "refind" "enable" ] false)
        # it asks for the passphrases of disks that are not here
        (off [ "boot" "initrd" "clevis" "enable" ] false)
        (off [ "environment" "persistence" ] { })
        (off [ "boot" "swraid" "enable" ] false)
        (lib.optionalAttrs (stalled != [ ]) {
          boot.initrd.systemd.services = lib.genAttrs stalled (_: {
            enable = lib.mkForce false;
          });
        })
      ];

  modules =
    (
      if known then
        [ ]
      else
        [
          vm
          guest
        ]
    )
    ++ (
      if disko != null then
        [ (disko host) ]
      else if disk config == null then
        [ ownDisk ]
      else
        [ ]
    );
in
if modules == [ ] then host else host.extendModules { inherit modules; }

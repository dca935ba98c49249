# Prepares a host of any flake for the lab: { vm, remotes, disk, disko } -> nixosConfigurations.<host> -> host.
# Passed as text to `nix eval --apply`, so it imports nothing, and no file of the flake is written.
#   vm       the module ./vm.nix
#   remotes  the function ./remotes.nix
#   disk     the function ./disk.nix
#   disko    null, or, if disko makes the disk as the host describes it, the function ./disko.nix with its arguments
{
  vm,
  remotes,
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

  # whether the host sets this option of sshd
  said = name: (config.services.openssh.settings.${name} or null) != null;
  # settings that hosts of this flake get from the role vm
  guest =
    { lib, ... }:
    {
      services.qemuGuest.enable = lib.mkForce true;
      boot.kernelParams = lib.mkAfter [ "console=ttyS0,115200" ];
      services.openssh.ports = lib.mkIf (!(elem 22 config.services.openssh.ports)) [ 22 ];
      # the VM does not have the host's addresses, such as a VPN's
      services.openssh.listenAddresses = lib.mkForce [ ];
      # a permanent sshd.service, and not one unit per connection
      services.openssh.startWhenNeeded = lib.mkForce false;
      services.openssh.settings =
        lib.optionalAttrs (said "AllowUsers") { AllowUsers = [ "root" ]; }
        // lib.optionalAttrs (said "AllowGroups") { AllowGroups = [ "root" ]; };
      # files that exist only on the real machine, such as the host key of an SSH server in the first stage:
      # without them installing the boot loader would fail
      boot.initrd.secrets = lib.mkForce { };
      boot.initrd.network.ssh.enable = lib.mkForce false;
    };

  # services of the first stage that wait for a disk of the real machine, such as those that wipe the root
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

  # the host's file systems are on disks that the VM does not have; everything that waits for one is dropped too
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
        # each of these would install itself as the only boot loader
        (off [ "boot" "loader" "generic-extlinux-compatible" "enable" ] false)
        (off [ "boot" "loader" "limine" "enable" ] false)
        (off [ "boot" "loader" "refind" "enable" ] false)
        # it would decrypt disks that the VM does not have
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
    ++ remotes host
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

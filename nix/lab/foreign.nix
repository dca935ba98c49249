# A host of any flake as the lab builds it: { vm, disko, imageSize, qemu } -> nixosConfigurations.<host> -> host.
# Text for `nix eval --apply`, so it imports nothing and nothing of theirs is written.
#   vm         the module ./vm.nix
#   disko      function that gives the disko to take where the host has none and an image is wanted: a locked
#              flake, fetched only then
#   imageSize  of the disk, as qemu-img reads it, or null where no image is wanted
#   emulated   whether the image is built without KVM, which may be there and not work
{
  vm,
  disko,
  imageSize,
  emulated,
}:
host:
let
  inherit (builtins)
    all
    any
    attrNames
    attrValues
    elem
    length
    ;
  inherit (host) config options;
  known = (options.lab or { }) ? vm;

  devices = config.disko.devices or { };
  disks = devices.disk or { };
  # an MBR's are a list, and have no ESP to boot from
  partitions = builtins.concatMap (
    disk: if disk.content.type or null == "gpt" then attrValues disk.content.partitions else [ ]
  ) (attrValues disks);
  kind = partition: if partition.content == null then "none" else partition.content.type;
  # a disk of theirs is taken as it is when an image of it boots with nobody there to type a passphrase
  plain =
    length (attrNames disks) == 1
    && any (partition: partition.type == "EF00") partitions
    && all (
      partition:
      elem (kind partition) [
        "none"
        "filesystem"
        "btrfs"
        "swap"
      ]
    ) partitions
    && all (pool: devices.${pool} or { } == { }) [
      "mdadm"
      "lvm_vg"
      "zpool"
      "bcachefs_filesystems"
    ]
    && config.boot.loader.systemd-boot.enable;

  # disko makes the image alone: what the host mounts is said beside it, so its toplevel is the same without
  partitioned = options ? disko || imageSize != null;

  image =
    {
      config,
      lib,
      pkgs,
      ...
    }:
    {
      disko = {
        devices.disk = lib.mkIf (imageSize != null && plain) (
          lib.genAttrs (attrNames disks) (_: {
            imageSize = lib.mkForce imageSize;
          })
        );
        imageBuilder = {
          imageFormat = lib.mkForce "qcow2";
          qemu = lib.mkIf emulated (
            lib.mkForce "${pkgs.qemu_kvm}/bin/qemu-system-x86_64 -machine accel=tcg -cpu max"
          );
          # disko (June 2026, its issue 1277) gives a tree of modules as the kernel, which nixpkgs has refused
          # since the two are told apart
          pkgs = lib.mkIf (lib.functionArgs pkgs.vmTools.override ? kernelModules) (
            lib.mkForce (
              pkgs
              // {
                vmTools = pkgs.vmTools // {
                  override =
                    arguments:
                    pkgs.vmTools.override (
                      if arguments ? kernelModules || arguments.kernel ? target then
                        arguments
                      else
                        arguments
                        // {
                          inherit (config.disko.imageBuilder.kernelPackages) kernel;
                          kernelModules = arguments.kernel;
                        }
                    );
                };
              }
            )
          );
        };
      };
    };

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
  disk =
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
        (lib.optionalAttrs partitioned {
          disko.enableConfig = lib.mkForce true;
          # not by force: the image builder forces a copy of these
          disko.devices = lib.mkOverride 60 {
            disk.main = {
              type = "disk";
              device = "/dev/vda";
              imageSize = if imageSize != null then imageSize else "20G";
              content = {
                type = "gpt";
                partitions.ESP = {
                  priority = 1;
                  size = "1G";
                  type = "EF00";
                  content = {
                    type = "filesystem";
                    format = "vfat";
                    mountpoint = "/boot";
                    mountOptions = [ "umask=0077" ];
                  };
                };
                partitions.root = {
                  size = "100%";
                  content = {
                    type = "filesystem";
                    format = "ext4";
                    mountpoint = "/";
                  };
                };
              };
            };
          };
        })
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
      if plain then
        [ ]
      else
        [ disk ]
        ++ (if partitioned && !(options ? disko) then [ (disko { }).nixosModules.disko ] else [ ])
    )
    ++ (if partitioned then [ image ] else [ ]);
in
if known && (imageSize == null || !(options ? disko)) then
  host
else
  host.extendModules { inherit modules; }

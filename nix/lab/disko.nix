# A host's disk as its disko configuration describes it, for disko's image builder:
# { imageSize, emulated } -> host -> module. Passed as text to `nix eval --apply`, so it imports nothing. Throws
# if an image of the disk could not boot unattended, for example because of a passphrase.
#   imageSize  size of the disk in qemu-img's notation, or null if no image is wanted
#   emulated   whether the image is built without KVM, which may be present but not work
{ imageSize, emulated }:
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
  devices = config.disko.devices or { };
  disks = devices.disk or { };
  # MBR partitions are a list, and include no ESP to boot from
  partitions = builtins.concatMap (
    disk: if disk.content.type or null == "gpt" then attrValues disk.content.partitions else [ ]
  ) (attrValues disks);
  kind = partition: if partition.content == null then "none" else partition.content.type;
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

  image =
    {
      config,
      lib,
      pkgs,
      ...
    }:
    {
      disko = {
        devices.disk = lib.mkIf (imageSize != null) (
          lib.genAttrs (attrNames disks) (_: {
            imageSize = lib.mkForce imageSize;
          })
        );
        imageBuilder = {
          imageFormat = lib.mkForce "qcow2";
          qemu = lib.mkIf emulated (
            lib.mkForce "${pkgs.qemu_kvm}/bin/qemu-system-x86_64 -machine accel=tcg -cpu max"
          );
          # disko (June 2026, its issue 1277) passes the tree of modules as the kernel, which nixpkgs rejects
          # since it takes the two as separate arguments
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
in
if !(options ? disko) then
  throw "this host has no disk of disko's, which --disko takes as it is"
else if !plain then
  throw "no image of this host's disk boots with nobody there (a passphrase, a pool, a second disk): leave --disko out"
else
  image

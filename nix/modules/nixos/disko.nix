# disks -> disko: GPT with an ESP, then swap if asked for, then the root.
{ config, lib, ... }:
let
  cfg = config.disks;

  subvolume = mountpoint: {
    inherit mountpoint;
    mountOptions = [
      "compress=zstd"
      "noatime"
    ];
  };
  root = {
    btrfs = {
      type = "btrfs";
      extraArgs = [
        "-f"
        "--label"
        "nixos"
      ];
      subvolumes = {
        "@root" = subvolume "/";
        "@nix" = subvolume "/nix";
        "@home" = subvolume "/home";
      };
    };
    ext4 = {
      type = "filesystem";
      format = "ext4";
      extraArgs = [
        "-L"
        "nixos"
      ];
      mountpoint = "/";
      mountOptions = [ "noatime" ];
    };
  };
in
{
  config = lib.mkIf cfg.enable {
    # a generated hardware configuration mounts btrfs subvolumes, which ext4 does not have
    fileSystems."/nix".enable = lib.mkIf (cfg.layout == "ext4") false;

    disko.devices.disk.main = {
      type = "disk";
      inherit (cfg) device imageSize;
      content = {
        type = "gpt";
        partitions = {
          ESP = {
            priority = 1;
            # a kernel and initrd per generation, and systemd-boot keeps many
            size = "1G";
            type = "EF00";
            content = {
              type = "filesystem";
              format = "vfat";
              mountpoint = "/boot";
              mountOptions = [ "umask=0077" ];
            };
          };
          root = {
            size = "100%";
            content = root.${cfg.layout};
          };
        }
        // lib.optionalAttrs cfg.withSwap {
          swap = {
            priority = 2;
            size = cfg.swapSize;
            content.type = "swap";
          };
        };
      };
    };
  };
}

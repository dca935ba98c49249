# disks: the disk as a host describes it. On NixOS ./nixos/disko.nix lays it out; the lab's image has its
# own layout and ignores these options.
{ lib, ... }:
let
  inherit (lib) mkEnableOption mkOption types;
in
{
  options.disks = {
    enable = mkEnableOption "laying out the disk by disko";
    layout = mkOption {
      type = types.enum [
        "btrfs"
        "ext4"
      ];
      default = "btrfs";
      description = "File system of the root: btrfs with the subvolumes @root, @nix and @home, or one ext4.";
    };
    device = mkOption {
      type = types.path;
      example = "/dev/vda";
      description = "The block device that holds everything.";
    };
    withSwap = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to have a swap partition of `swapSize`.";
    };
    swapSize = mkOption {
      type = types.strMatching "[1-9][0-9]*[MG]";
      default = "2G";
      description = "Size of the swap partition.";
    };
    imageSize = mkOption {
      type = types.strMatching "[1-9][0-9]*[MG]";
      default = "20G";
      description = "Size of an image made from this disk; disko's default of 2G is too small for a system.";
    };
  };
}

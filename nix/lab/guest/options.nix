# Of the guest alone: what has no place in NixOS's own options.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.lab.guest = {
    kernelParams = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Kernel parameters of the lab's guest, put after the host's own.";
    };
    kernel = mkOption {
      type = types.unspecified;
      default = null;
      description = "Derivation of one file to boot in place of Debian's kernel.";
    };
    initrd = mkOption {
      type = types.unspecified;
      default = null;
      description = "Derivation of one file to boot in place of the image's first stage.";
    };
  };
}

# Options of the guest alone, which have no equivalent in NixOS.
{ lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.lab.guest = {
    kernelParams = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Kernel parameters of the lab's guest, appended to the host's own.";
    };
    kernel = mkOption {
      type = types.unspecified;
      default = null;
      description = "Derivation whose output is one file, to boot in place of Debian's kernel.";
    };
    initrd = mkOption {
      type = types.unspecified;
      default = null;
      description = "Derivation whose output is one file, to boot in place of the image's first stage.";
    };
  };
}

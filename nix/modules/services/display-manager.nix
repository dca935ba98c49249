# modules.services.display-manager: graphical logins.
{ config, lib, ... }:
let
  known = [
    "ly"
    "sddm"
  ];
in
{
  options.modules.services.display-manager = lib.mkOption {
    type = lib.types.listOf (lib.types.enum known);
    default = [ ];
    description = "Graphical logins; at most one makes sense.";
  };

  config.services.displayManager = lib.genAttrs known (name: {
    enable = lib.mkIf (lib.elem name config.modules.services.display-manager) true;
  });
}

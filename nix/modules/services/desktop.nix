# modules.services.desktop: graphical environments.
{ config, lib, ... }:
let
  known = [
    "hyprland"
    "sway"
  ];
in
{
  options.modules.services.desktop = lib.mkOption {
    type = lib.types.listOf (lib.types.enum known);
    default = [ ];
    description = "Graphical environments; an empty list makes the host headless.";
  };

  config.programs = lib.genAttrs known (name: {
    enable = lib.mkIf (lib.elem name config.modules.services.desktop) true;
  });
}

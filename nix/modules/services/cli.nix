# modules.services.cli: services of the command line, each by the NixOS option that brings it.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  chosen = name: lib.elem name config.modules.services.cli;
in
{
  options.modules.services.cli = lib.mkOption {
    type = lib.types.listOf (lib.types.enum [ "atuin" ]);
    default = [ ];
    description = "Services of the command line; `atuin` is the client of the shared history, not its server.";
  };

  config = lib.mkIf (chosen "atuin") (
    # programs.atuin is younger than some releases that this module is used with
    if options ? programs.atuin then
      { programs.atuin.enable = true; }
    else
      { environment.systemPackages = [ pkgs.atuin ]; }
  );
}

# modules.services.cli: command-line services, each enabled by its NixOS option.
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
    description = "Command-line services; `atuin` is the client of the shared history, not its server.";
  };

  config = lib.mkIf (chosen "atuin") (
    # some releases that this module is used with do not have programs.atuin yet
    if options ? programs.atuin then
      { programs.atuin.enable = true; }
    else
      { environment.systemPackages = [ pkgs.atuin ]; }
  );
}

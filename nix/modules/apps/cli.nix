# modules.apps.cli: sets of command-line programs.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  chosen = name: lib.elem name config.modules.apps.cli;
in
{
  options.modules.apps.cli = lib.mkOption {
    type = lib.types.listOf (
      lib.types.enum [
        "comma"
        "shell"
        "tools"
      ]
    );
    default = [ ];
    description = "Sets of programs: `comma` (runs programs that are not installed), `shell` (less), `tools` (curl, jq).";
  };

  config.environment.systemPackages =
    lib.optional (chosen "comma") pkgs.comma
    ++ lib.optional (chosen "shell") pkgs.less
    ++ lib.optionals (chosen "tools") [
      pkgs.curl
      pkgs.jq
    ];
}

# Lab only: the toplevel, and what this guest cannot have.
{ config, lib, pkgs, ... }:
let
  failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
  checked = value:
    if failed != [ ] then throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (m: "- ${m}") failed}"
    else lib.foldr lib.warn value config.warnings;
in
{
  # Any option of NixOS that the lab does not declare is taken as it is written.
  freeformType = lib.types.shape;

  options.lab.unavailable = lib.mkOption {
    type = lib.types.attrsOf lib.types.str;
    default = { };
    example = { tailscale = "Debian carries no tailscale"; };
    description = "Services that the host declares and this guest cannot have, each with the reason; reported as n/a.";
  };

  config.system.build = lib.optionalAttrs (builtins.pathExists ./toplevel.nix) {
    toplevel = checked (import ./toplevel.nix { inherit lib pkgs config; });
  };
}

# A warning for each program that is older than agents need it, such as those of a nixpkgs whose release has ended.
{ lib, pkgs }:
# who needs them, and from which version on, by name
who: oldest:
lib.concatLists (
  lib.mapAttrsToList (
    name: version:
    let
      # the embedded guest has what its image has
      found = pkgs.${name}.version or version;
    in
    lib.optional (
      builtins.compareVersions found version < 0
    ) "${who} needs ${name} ${version} or newer, and this host has ${found}"
  ) oldest
)

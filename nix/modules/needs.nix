# A warning for each program that is older than the agents need, as in a nixpkgs release that is no longer maintained.
{ lib, pkgs }:
# `who`: the module that needs the programs; `oldest`: program name -> oldest version that works
who: oldest:
lib.concatLists (
  lib.mapAttrsToList (
    name: version:
    let
      # the embedded guest's packages have no version here: they come with its image
      found = pkgs.${name}.version or version;
    in
    lib.optional (
      builtins.compareVersions found version < 0
    ) "${who} needs ${name} ${version} or newer, and this host has ${found}"
  ) oldest
)

{ nixpkgs, ... }:
{
  mergeAll = builtins.foldl' nixpkgs.lib.recursiveUpdate { };
}

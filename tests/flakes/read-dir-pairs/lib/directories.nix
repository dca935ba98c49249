{ lib }:
let
  mapFew = f: set: builtins.listToAttrs (builtins.filter (pair: pair != null) (lib.mapAttrsToList f set));
in
directory:
if builtins.pathExists directory then
  lib.pipe directory [
    builtins.readDir
    (mapFew (
      name: type:
      if type == "directory" && builtins.pathExists "${directory}/${name}/default.nix" then
        lib.nameValuePair name "${directory}/${name}"
      else
        null
    ))
  ]
else
  { }

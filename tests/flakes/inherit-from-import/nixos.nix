{ lib }:
{
  nixosModules = { };
  nixosConfigurations = lib.genAttrs [
    "coral"
    "flint"
  ] (name: lib.nixosSystem { modules = [ ./${name}.nix ]; });
}

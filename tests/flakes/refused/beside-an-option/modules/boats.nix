{ config, inputs, ... }:
{
  flake.nixosConfigurations = builtins.mapAttrs (
    _: inputs.nixpkgs.lib.nixosSystem
  ) config.fleet.boats;
}

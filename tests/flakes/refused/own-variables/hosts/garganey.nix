{ config, inputs, ... }:
{
  flake.nixosConfigurations.garganey = inputs.nixpkgs.lib.nixosSystem {
    modules = with config.flake.modules.nixos; [ base garganey ];
  };
  flake.modules.nixos.garganey = { };
}

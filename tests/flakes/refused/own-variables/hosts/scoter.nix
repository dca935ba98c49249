{ config, inputs, ... }:
{
  flake.nixosConfigurations.scoter = inputs.nixpkgs.lib.nixosSystem {
    modules = with config.flake.modules.nixos; [ base scoter ];
  };
  flake.modules.nixos.scoter = { };
}

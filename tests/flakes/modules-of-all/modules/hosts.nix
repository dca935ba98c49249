{ config, inputs, ... }:
{
  flake.nixosConfigurations = {
    vetch = inputs.nixpkgs.lib.nixosSystem { modules = [ config.flake.modules.nixos.vetch ]; };
    clover = inputs.nixpkgs.lib.nixosSystem { modules = [ config.flake.modules.nixos.clover ]; };
  };
}

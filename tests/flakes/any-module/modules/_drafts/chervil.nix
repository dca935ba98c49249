{ inputs, ... }:
{
  flake.nixosConfigurations.chervil = inputs.nixpkgs.lib.nixosSystem { modules = [ ]; };
}

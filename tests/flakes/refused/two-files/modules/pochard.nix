{ inputs, ... }:
{
  flake.nixosConfigurations.pochard = inputs.nixpkgs.lib.nixosSystem { modules = [ ../hosts/pochard ]; };
}

{ inputs, ... }:
{
  flake.nixosConfigurations.brent = inputs.nixpkgs.lib.nixosSystem { modules = [ ../hosts/brent ]; };
}

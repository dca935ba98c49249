{ inputs, ... }:
{
  flake.nixosConfigurations.crake = inputs.nixpkgs.lib.nixosSystem {
    modules = [ ../machines/crake ];
  };
}

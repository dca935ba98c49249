{ inputs, ... }:
{
  flake.nixosConfigurations.smew = inputs.nixpkgs.lib.nixosSystem { modules = [ inputs.self.nixosModules.smew ]; };
  flake.nixosModules.smew.networking.hostName = "smew";
}

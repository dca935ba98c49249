{ inputs, ... }:
{
  flake.nixosConfigurations.eider = inputs.nixpkgs.lib.nixosSystem { modules = [ inputs.self.nixosModules.eider ]; };
  flake.nixosModules.eider.networking.hostName = "eider";
}

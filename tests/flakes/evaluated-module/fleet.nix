{ inputs, ... }:
{
  flake.nixosConfigurations = {
    smew = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/smew.nix ]; };
    scaup = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/scaup.nix ]; };
  };
}

{ nixpkgs, ... }:
{
  nixosConfigurations = {
    agate = nixpkgs.lib.nixosSystem { modules = [ ./hosts/agate ]; };
    beryl = nixpkgs.lib.nixosSystem { modules = [ ./hosts/beryl ]; };
  };
}

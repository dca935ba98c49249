{
  outputs =
    { self, nixpkgs, ... }:
    {
      nixosConfigurations = {
        plover = nixpkgs.lib.nixosSystem {
          modules = [ "${self}/machines/plover/configuration.nix" ./base.nix ];
        };
        rail = nixpkgs.lib.nixosSystem { modules = [ ./container ]; };
        crake = nixpkgs.lib.nixosSystem { modules = [ ./container ]; };
      };
    };
}

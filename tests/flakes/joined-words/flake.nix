{
  outputs =
    { self, nixpkgs, ... }:
    {
      disks = { zinc = { }; clay = { }; };
      nixosConfigurations = {
        zinc = nixpkgs.lib.nixosSystem {
          modules = [
            ./hosts/zinc-hardware.nix
            self.disks.zinc
            ./modules/web-server.nix
          ];
        };
        clay = nixpkgs.lib.nixosSystem {
          modules = [
            ./hosts/clay-hardware.nix
            self.disks.clay
            ./modules/web-server.nix
          ];
        };
      };
    };
}

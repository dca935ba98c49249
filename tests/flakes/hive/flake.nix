{
  outputs =
    { self, nixpkgs, colmena, ... }:
    {
      colmenaHive = colmena.lib.makeHive {
        meta.nixpkgs = nixpkgs;
        defaults.time.timeZone = "UTC";
        drone = { imports = [ ./nodes/drone ]; };
        queen = { imports = [ ./nodes/queen ]; };
      };
      nixosConfigurations = self.colmenaHive.nodes;
    };
}

{
  outputs =
    { self, nixpkgs, colmena, ... }:
    {
      hive = colmena.lib.makeHive self.outputs.fleet;
      fleet = {
        meta.nixpkgs = nixpkgs;
        dunlin = { imports = [ ./nodes/dunlin ]; };
      };
      nixosConfigurations = self.hive.nodes;
    };
}

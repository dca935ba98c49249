{
  outputs =
    { self, nixpkgs, ... }:
    {
      lib.hosts = nixpkgs.lib.genAttrs [ "chive" "dill" ];
      nixosConfigurations = self.lib.hosts (
        name: nixpkgs.lib.nixosSystem { modules = [ ./${name} ]; }
      );
    };
}

{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = nixpkgs.lib.genAttrs
        (builtins.fromJSON (builtins.readFile ./hosts.json))
        (name: nixpkgs.lib.nixosSystem { modules = [ ./${name} ]; });
    };
}

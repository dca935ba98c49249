{
  outputs =
    { self, nixpkgs, ... }@inputs:
    let
      lib = nixpkgs.lib.extend (final: prev: { mine = import ./lib.nix { lib = final; }; });
      pkgs = import nixpkgs { system = "x86_64-linux"; };
      hosts = lib.genAttrs [ "mint" ] lib.id // pkgs.lib.genAttrs [ "parsley" "rue" ] lib.id;
    in
    {
      nixosConfigurations = lib.mapAttrs (name: _: lib.nixosSystem { modules = [ ./${name} ]; }) hosts;
    };
}

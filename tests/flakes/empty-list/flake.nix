{
  outputs =
    { nixpkgs, ... }:
    let
      hosts = [ ];
    in
    {
      nixosConfigurations = nixpkgs.lib.genAttrs hosts (name: nixpkgs.lib.nixosSystem { modules = [ ./${name} ]; });
    };
}

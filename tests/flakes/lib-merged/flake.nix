{
  outputs =
    { nixpkgs, ... }:
    let
      lib = nixpkgs.lib // { mine = { }; };
    in
    {
      nixosConfigurations = lib.genAttrs [ "kale" "leek" ] (name: lib.nixosSystem { modules = [ ./${name} ]; });
    };
}

{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
    in
    {
      nixosConfigurations = lib.pipe { maple = [ ]; poplar = [ ]; } [
        (lib.flip lib.mapAttrs)
        (each: each (name: modules: lib.nixosSystem { modules = modules ++ [ ./${name}.nix ]; }))
      ];
    };
}

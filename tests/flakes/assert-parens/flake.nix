{
  outputs =
    { nixpkgs, ... }:
    assert nixpkgs ? lib;
    let
      mkHost = nixpkgs.lib.nixosSystem;
    in
    ({
      nixosConfigurations = ({
        topaz = mkHost { modules = [ ./topaz ]; };
        umber = mkHost { modules = [ ./umber ]; };
      });
    });
}

{
  outputs =
    { nixpkgs, ... }:
    let
      lib = nixpkgs.lib // { mine = import ./lib.nix; };
      mkHost = name: lib.nixosSystem { modules = [ ./hosts/${name} ]; };
      hosts = {
        lark = mkHost "lark";
        mole = mkHost "mole";
      };
    in
    {
      nixosConfigurations = hosts // {
        installer = lib.nixosSystem { modules = [ ./installer.nix ]; };
      };
    };
}

{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      desktops = [ "dotterel" "knot" ];
      builders = [ "knot" ];
    in
    {
      nixosConfigurations = lib.foldr (
        name: all: all // { ${name} = lib.nixosSystem { modules = [ ./hosts/${name} ]; }; }
      ) { } (lib.unique (desktops ++ builders));
    };
}

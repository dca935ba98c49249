{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = builtins.foldl' (
        all: name: all // { ${name} = nixpkgs.lib.nixosSystem { modules = [ ./${name} ]; }; }
      ) { } [ "gneiss" "loess" ];
    };
}

{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      machines = import ./machines.nix;
      make = all: name: system: all // { ${name} = lib.nixosSystem { inherit system; modules = [ ./${name} ]; }; };
    in
    {
      nixosConfigurations = lib.foldlAttrs make { } (removeAttrs machines [ "usual" ]);
    };
}

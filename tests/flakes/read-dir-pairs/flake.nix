{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      directories = import ./lib/directories.nix { inherit lib; };
    in
    {
      nixosConfigurations = lib.mapAttrs (_: path: lib.nixosSystem { modules = [ path ]; }) (directories ./machines);
    };
}

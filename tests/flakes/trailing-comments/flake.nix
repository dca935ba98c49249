{
  outputs =
    { nixpkgs, ... }:
    let
      mkHost = name: nixpkgs.lib.nixosSystem { modules = [ ./machines/${name}.nix ]; };
    in
    {
      nixosConfigurations = {
        atlas = mkHost "atlas"; # the desktop
        borea = mkHost "borea"; # the laptop, see borea.md
      };
    };
}

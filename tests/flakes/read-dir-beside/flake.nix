{
  outputs =
    { nixpkgs, ... }:
    let
      facts = name: import (./hosts + "/${name}/meta.nix");
      make = name: _: nixpkgs.lib.nixosSystem { modules = [ (facts name).module ]; };
    in
    {
      nixosConfigurations = builtins.mapAttrs make (builtins.readDir ./hosts);
    };
}

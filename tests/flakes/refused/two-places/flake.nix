{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs.lib) genAttrs nixosSystem;
      server = name: nixosSystem { modules = [ ./server.nix ./${name} ]; };
      desktop = name: nixosSystem { modules = [ ./desktop.nix ./${name} ]; };
    in
    {
      nixosConfigurations =
        genAttrs [ "swift" "crow" ] server
        // genAttrs [ "dove" "rook" ] desktop;
    };
}

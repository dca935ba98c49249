{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      names = builtins.attrNames (builtins.readDir ./hosts);
      hosts = builtins.concatMap (
        name:
        lib.optional (builtins.pathExists ./hosts/${name}/default.nix) {
          inherit name;
          module = ./hosts/${name}/default.nix;
          tags = [ ];
        }
      ) names;
    in
    {
      nixosConfigurations = builtins.listToAttrs (
        map (host: lib.nameValuePair host.name (lib.nixosSystem { modules = [ host.module ]; })) hosts
      );
    };
}

{
  outputs =
    { self, nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      hosts = builtins.attrNames (builtins.readDir (self + "/systems"));
    in
    {
      nixosConfigurations = lib.genAttrs hosts (
        name: lib.nixosSystem { modules = [ "${self}/systems/${name}/configuration.nix" ]; }
      );
    };
}

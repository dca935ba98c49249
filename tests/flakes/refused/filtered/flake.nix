{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      machines = {
        ibis = { os = "nixos"; };
        kiwi = { os = "darwin"; };
      };
    in
    {
      nixosConfigurations = builtins.mapAttrs (name: _: lib.nixosSystem { modules = [ ./${name} ]; }) (
        lib.filterAttrs (name: _: builtins.pathExists ./${name}) machines
      );
    };
}

{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      hosts = {
        quartz = { };
        ruby = { };
      };
    in
    {
      nixosConfigurations =
        lib.mapAttrs' (name: _: lib.nameValuePair name (lib.nixosSystem { modules = [ ./${name} ]; })) hosts
        // lib.mapAttrs' (name: _: lib.nameValuePair "${name}-vm" (lib.nixosSystem { modules = [ ./vm.nix ]; })) hosts;
    };
}

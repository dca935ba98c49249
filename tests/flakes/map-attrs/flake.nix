{
  outputs =
    { self, nixpkgs, ... }:
    {
      nixosConfigurations =
        builtins.mapAttrs
          (
            name: { system, roles }:
            nixpkgs.lib.nixosSystem {
              inherit system;
              modules = [ ./hosts/${name} ] ++ map (role: ./roles/${role}.nix) roles;
            }
          )
          {
            raven = {
              system = "x86_64-linux";
              roles = [ "desktop" ];
            };
            stork = {
              system = "aarch64-linux";
              roles = [ "server" "backup" ];
            };
          };
    };
}

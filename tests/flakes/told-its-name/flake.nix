{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = builtins.mapAttrs (
        name: of:
        nixpkgs.lib.nixosSystem {
          specialArgs = { inherit name of; };
          modules = [ ./system.nix ];
        }
      ) {
        auk = { };
        tern = { };
      };
    };
}

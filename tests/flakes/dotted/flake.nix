{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
    in
    {
      formatter.x86_64-linux = { };

      nixosConfigurations.anvil = lib.nixosSystem {
        modules = [ ./anvil.nix ];
      };

      nixosConfigurations.bellows = lib.nixosSystem {
        modules = [ ./bellows.nix ];
      };

      checks.x86_64-linux = { };
    };
}

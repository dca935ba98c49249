{
  outputs =
    { nixpkgs, ... }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
    in
    {
      nixosConfigurations = nixpkgs.lib.genAttrs systems (
        system: nixpkgs.lib.nixosSystem { inherit system; modules = [ ./configuration.nix ]; }
      );
    };
}

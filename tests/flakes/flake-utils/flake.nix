{
  outputs =
    { nixpkgs, flake-utils, ... }:
    (flake-utils.lib.eachDefaultSystem (system: {
      packages.default = nixpkgs.legacyPackages.${system}.hello;
    }))
    // {
      nixosConfigurations.slate = nixpkgs.lib.nixosSystem { modules = [ ./slate.nix ]; };
    };
}

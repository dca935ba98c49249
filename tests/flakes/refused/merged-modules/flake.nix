{
  outputs =
    { nixpkgs, flake-parts, ... }@inputs:
    flake-parts.lib.mkFlake { inherit inputs; } {
      flake = nixpkgs.lib.mkMerge [
        { nixosConfigurations.siskin = nixpkgs.lib.nixosSystem { modules = [ ./siskin.nix ]; }; }
        { nixosConfigurations.twite = nixpkgs.lib.nixosSystem { modules = [ ./twite.nix ]; }; }
      ];
    };
}

{
  outputs =
    inputs@{ flake-parts, import-tree, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ (import-tree ./modules) ];
      fleet.boats.skua.modules = [ ./boats/skua.nix ];
      flake.nixosConfigurations.image = inputs.nixpkgs.lib.nixosSystem {
        modules = [ "${inputs.nixpkgs}/nixos/modules/installer/cd-dvd/installation-cd-minimal.nix" ];
      };
    };
}

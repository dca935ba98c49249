{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      systems = [ "x86_64-linux" ];
      perSystem = { pkgs, ... }: { formatter = pkgs.nixfmt; };

      flake.nixosConfigurations.ant = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/ant ]; };
      flake.nixosConfigurations.bee = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/bee ]; };
    };
}

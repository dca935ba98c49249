{
  outputs =
    inputs@{ adios-flake, self, ... }:
    adios-flake.lib.mkFlake {
      inherit inputs self;
      systems = [ "x86_64-linux" ];
      perSystem = { pkgs, ... }: { formatter = pkgs.nixfmt; };
      flake = { withSystem, ... }: {
        nixosConfigurations.moth = inputs.nixpkgs.lib.nixosSystem { modules = [ ./hosts/moth ]; };
      };
    };
}

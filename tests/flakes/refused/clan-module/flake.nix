{
  outputs =
    inputs@{ adios-flake, self, ... }:
    adios-flake.lib.mkFlake {
      inherit inputs self;
      systems = [ "x86_64-linux" ];
      flake =
        let crew = import ./crew.nix self;
        in {
          inherit (crew.config) nixosConfigurations;
        };
    };
}

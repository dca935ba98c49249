{
  outputs =
    { nixpkgs, ... }@inputs:
    let
      mkSystem = { host, system ? "x86_64-linux" }: nixpkgs.lib.nixosSystem { inherit system; modules = [ ./${host} ]; };
      nixosConfigurations = {
        iris = mkSystem { host = "iris"; };
        jade = mkSystem {
          host = "jade";
          system = "aarch64-linux";
        };
        kite = mkSystem { host = "kite"; };
      };
    in
    {
      inherit nixosConfigurations;
      packages.x86_64-linux = { };
    };
}

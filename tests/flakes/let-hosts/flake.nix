{
  outputs =
    { self, nixpkgs }:
    let
      system = "x86_64-linux";
      hosts = {
        gull = nixpkgs.lib.nixosSystem {
          inherit system;
          modules = [ ./gull.nix ];
        };
        heron = nixpkgs.lib.nixosSystem {
          inherit system;
          modules = [ ./heron.nix ];
        };
      };
    in
    {
      nixosConfigurations = hosts;
      checks.${system} = builtins.mapAttrs (_: host: host.config) hosts;
    };
}

{
  outputs =
    {
      self,
      nixpkgs,
    }:
    let
      mkHost =
        {
          hostname,
          system ? "x86_64-linux",
        }:
        nixpkgs.lib.nixosSystem {
          inherit system;
          modules = [ ./hosts/${hostname} ];
        };
    in
    {
      nixosConfigurations = {
        amber = mkHost { hostname = "amber"; };
        basil = mkHost { hostname = "basil"; };
      };
    };
}

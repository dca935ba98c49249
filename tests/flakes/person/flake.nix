{
  outputs =
    { nixpkgs, ... }:
    let
      mkHost = { hostname, username }: nixpkgs.lib.nixosSystem { specialArgs = { inherit hostname username; }; modules = [ ]; };
    in
    {
      nixosConfigurations = {
        rain = mkHost { hostname = "rain"; username = "rain"; };
      };
    };
}

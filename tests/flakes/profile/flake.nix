{
  outputs =
    { nixpkgs, ... }:
    let
      mkHost = { hostname, profile }: nixpkgs.lib.nixosSystem { modules = [ ./profiles/${profile}.nix ./hosts/${hostname} ]; };
    in
    {
      nixosConfigurations = {
        laptop = mkHost { hostname = "laptop"; profile = "desktop"; };
        desktop = mkHost { hostname = "desktop"; profile = "desktop"; };
      };
    };
}

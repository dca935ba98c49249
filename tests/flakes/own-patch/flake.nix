{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = {
        curlew = nixpkgs.lib.nixosSystem {
          modules = [ (import ./system.nix { }) { boot.patches = [ ./patches/curlew.patch ]; } ];
        };
      };
    };
}

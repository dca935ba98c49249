{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = {
        curlew = nixpkgs.lib.nixosSystem {
          modules = [ ./system.nix { boot.patches = [ ./patches/curlew.patch ]; } ];
        };
      };
    };
}

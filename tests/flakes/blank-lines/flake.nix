{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = {

        alder = nixpkgs.lib.nixosSystem {
          modules = [ ./alder.nix ];
        };

        # grows by the water
        willow = nixpkgs.lib.nixosSystem {
          modules = [ ./willow.nix ];
        };

      };

    };
}

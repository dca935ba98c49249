{
  outputs =
    { nixpkgs, ... }:
    let
      merlin = nixpkgs.lib.nixosSystem { modules = [ ./merlin.nix ]; };
      osprey = nixpkgs.lib.nixosSystem { modules = [ ./osprey.nix ]; };
    in
    {
      nixosConfigurations = {
        inherit merlin osprey;
      };
    };
}

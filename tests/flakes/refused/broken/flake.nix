{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = {
        raven = nixpkgs.lib.nixosSystem { modules = [ ./raven.nix };
      };
    };
}

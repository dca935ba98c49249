{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = {
        big = nixpkgs.lib.nixosSystem {
          modules = [
            ./hosts/big
            ./modules/games.nix
          ];
        };
        small = nixpkgs.lib.nixosSystem { modules = [ ./hosts/small ]; };
        other = nixpkgs.lib.nixosSystem {
          modules = [
            ./hosts/other
            ./modules/mail.nix
            ./modules/web.nix
          ];
        };
      };
    };
}

{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = {
        web = nixpkgs.lib.nixosSystem {
          modules = [
            ./hosts/web
            ./modules/web-server.nix
            { networking.fqdn = "web.example.org"; }
          ];
        };
      };
    };
}

{
  description = "Every host spelled out";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.home-manager.url = "github:nix-community/home-manager";

  outputs =
    {
      self,
      nixpkgs,
      home-manager,
      ...
    }@inputs:
    {
      nixosConfigurations = {
        # at home
        desk = nixpkgs.lib.nixosSystem {
          system = "x86_64-linux";
          specialArgs = {
            inherit inputs;
            hostname = "desk";
          };
          modules = [
            # of every machine
            ./common
            home-manager.nixosModules.home-manager
            ./hosts/desk/configuration.nix # desk has two screens
          ];
        };

        # on the road
        lap = nixpkgs.lib.nixosSystem {
          system = "x86_64-linux";
          specialArgs = {
            inherit inputs;
            hostname = "lap";
          };
          modules = [
            # of every machine
            ./common
            home-manager.nixosModules.home-manager
            ./hosts/lap/configuration.nix # lap sleeps when it is closed
          ];
        };
      };
    };
}

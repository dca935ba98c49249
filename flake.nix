{
  description = "Throwaway headless VMs that prove a GitOps setup survives being broken";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    disko.url = "github:nix-community/disko";
    disko.inputs.nixpkgs.follows = "nixpkgs";
    sops-nix.url = "github:Mic92/sops-nix";
    sops-nix.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { self, nixpkgs, ... }@inputs:
    let
      system = "x86_64-linux";
      # an input is fetched when an output first touches it, so the lab's outputs need no network
      pkgs = nixpkgs.legacyPackages.${system};
      lab = import ./nix/lab;

      mkHost =
        { hostname }:
        nixpkgs.lib.nixosSystem {
          specialArgs = { inherit inputs; };
          modules = [
            inputs.disko.nixosModules.disko
            inputs.sops-nix.nixosModules.sops
            self.nixosModules.default
            ./nix/modules/nixos
            (./hosts + "/${hostname}")
          ];
        };
    in
    {
      nixosConfigurations = {
        sorrow = mkHost { hostname = "sorrow"; };
        torment = mkHost { hostname = "torment"; };
      };

      # The same hosts for the embedded Debian guest
      labConfigurations = builtins.mapAttrs (
        hostname: _: lab.labSystem { inherit hostname; }
      ) self.nixosConfigurations;

      lib = { inherit (lab) labSystem; };

      nixosModules = {
        autoUpgrade = ./nix/modules/auto-upgrade.nix;
        goldenGeneration = ./nix/modules/golden-generation.nix;
        chezmoiSync = ./nix/modules/chezmoi-sync.nix;
        headlessVm = {
          imports = [ self.nixosModules.default ];
          roles = [ "vm" ];
        };
        default.imports = [
          ./nix/modules
          ./nix/roles
        ];
      };

      devShells.${system}.default = import ./nix/shell.nix { inherit pkgs; };
      formatter.${system} = (import ./nix/format.nix { inherit pkgs self; }).formatter;
      checks.${system} = import ./nix/checks.nix { inherit pkgs self; };
    };
}

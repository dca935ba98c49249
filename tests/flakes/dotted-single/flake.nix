{
  outputs = inputs: {
    nixosConfigurations."nixos" = inputs.nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ./configuration.nix inputs.nixos-hardware.nixosModules.common-pc-ssd ];
    };
  };
}

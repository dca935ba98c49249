{
  outputs = { nixpkgs, ... }: {
    nixosConfigurations = nixpkgs.lib.genAttrs [ "ash" "bay" ] (hostName:
      nixpkgs.lib.nixosSystem {
        modules = [ { networking = { inherit hostName; }; } ];
      });
  };
}

{
  outputs = { nixpkgs, ... }: rec {
    nixosConfigurations = rec {
      newt = nixpkgs.lib.nixosSystem { modules = [ ./newt ]; };
      otter = nixpkgs.lib.nixosSystem { modules = [ ./otter ]; };
    };
    hydraJobs = nixosConfigurations;
  };
}

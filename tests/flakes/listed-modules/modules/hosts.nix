{ inputs, ... }: { flake.nixosConfigurations.sage = inputs.nixpkgs.lib.nixosSystem { modules = [ ]; }; }

inputs: { name }: inputs.nixpkgs.lib.nixosSystem { modules = [ { networking.hostName = name; } ]; }

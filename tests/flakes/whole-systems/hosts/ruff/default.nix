{ inputs }: inputs.nixpkgs.lib.nixosSystem { modules = [ { networking.hostName = "ruff"; } ]; }

{ nixpkgs, ... }: nixpkgs.lib.nixosSystem { modules = [ ]; }

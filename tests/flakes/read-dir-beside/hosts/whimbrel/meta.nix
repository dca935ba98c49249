{ module = ./configuration.nix; }

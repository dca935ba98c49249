_: { modules = [ ./configuration.nix ]; }

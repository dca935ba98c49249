inputs: inputs.stable.lib.nixosSystem { modules = [ ]; }

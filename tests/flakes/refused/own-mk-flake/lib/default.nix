inputs: inputs.nixpkgs.lib.extend (final: prev: { })

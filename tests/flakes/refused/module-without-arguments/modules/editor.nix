{ flake.nixosModules.editor = { }; }

{ flake.nixosConfigurations.none = { }; }

{ flake.modules.nixos.clover = { }; }

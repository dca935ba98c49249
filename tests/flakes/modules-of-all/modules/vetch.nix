{ flake.modules.nixos.vetch = { }; }

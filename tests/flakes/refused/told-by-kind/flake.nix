{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.ez-configs.flakeModule ];
      ezConfigs = {
        root = ./.;
        darwin.configurationsDirectory = ./hosts/darwin;
        home.configurationsDirectory = ./homes;
        nixos.configurationsDirectory = ./hosts/nixos;
        nixos.modulesDirectory = ./modules;
      };
    };
}

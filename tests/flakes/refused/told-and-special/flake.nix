{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.ez-configs.flakeModule ];
      ezConfigs = {
        root = ./.;
        nixos.hosts.turnstone.userHomeModules = [ "wader" ];
      };
    };
}

{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.easy-hosts.flakeModule ];
      easy-hosts = {
        autoConstruct = true;
        path = ./machines;
        onlySystem = "aarch64-darwin";
      };
    };
}

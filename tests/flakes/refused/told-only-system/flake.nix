{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.easy-hosts.flakeModule ];
      easy-hosts = {
        autoConstruct = true;
        path = ./boxes;
        onlySystem = "x86_64-nixos";
      };
    };
}

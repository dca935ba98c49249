{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.simple.flakeModule ];
      simple = {
        autoConstruct = true;
        path = ./hosts;
        hosts.avocet.tags = [ "small" ];
      };
    };
}

{
  outputs =
    inputs@{ flake-parts, self, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.simple.flakeModule ];
      simple = {
        path = self + "/hosts";
        hosts.sanderling.arch = "x86_64";
      };
    };
}

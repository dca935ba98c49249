{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.fleet.flakeModules.default ];
      fleet.hosts.thyme = { };
    };
}

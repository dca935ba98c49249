{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.den.flakeModule ];
      den.hosts = {
        x86_64-linux.bittern.users.ada = { };
        aarch64-darwin.knot.users.ada = { };
      };
    };
}

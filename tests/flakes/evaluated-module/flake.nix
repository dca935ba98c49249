{
  outputs =
    inputs@{ flake-parts, ... }:
    (flake-parts.lib.evalFlakeModule { inherit inputs; } {
      systems = [ "x86_64-linux" ];
      imports = [ ./fleet.nix ];
    }).config.flake;
}

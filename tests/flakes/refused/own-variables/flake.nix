{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } { imports = [ ./hosts/garganey.nix ./hosts/scoter.nix ]; };
}

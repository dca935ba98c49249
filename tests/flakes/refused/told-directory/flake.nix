{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.wired.flakeModule ];
      wired.nixos.directory = ./nix/boxes;
    };
}

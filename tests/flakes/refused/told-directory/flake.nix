{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ inputs.wired.flakeModule ];
      wired.extraSpecialArgs.vault = ./secrets;
      wired.nixos.entry = ./start.nix;
      wired.nixos.directory = ./nix/boxes;
    };
}

{
  outputs =
    inputs@{ flake-parts, ... }:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [
        ./hosts
        ./shell.nix
      ];
      systems = [ "x86_64-linux" ];
    };
}

{
  outputs =
    { flake-parts, ... }@inputs:
    flake-parts.lib.mkFlake { inherit inputs; } {
      imports = [ (flake-parts.lib.importApply ./machines.nix { platform = "x86_64-linux"; }) ];
    };
}

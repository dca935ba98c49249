{
  outputs =
    inputs:
    inputs.flake-parts.lib.mkFlake { inherit inputs; } {
      imports = map (file: ./modules/${file}) (builtins.attrNames (builtins.readDir ./modules));
    };
}

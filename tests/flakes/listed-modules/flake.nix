{
  outputs =
    inputs:
    let
      isModule = name: builtins.match ".*[.]nix" name != null;
      files = builtins.filter isModule (builtins.attrNames (builtins.readDir ./modules));
    in
    inputs.flake-parts.lib.mkFlake { inherit inputs; } {
      imports = map (file: ./modules/${file}) files;
    };
}

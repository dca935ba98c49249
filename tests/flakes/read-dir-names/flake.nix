{
  outputs =
    { nixpkgs, ... }@inputs:
    let
      inherit (nixpkgs) lib;
      names = lib.remove "common" (map (lib.removeSuffix ".nix") (builtins.attrNames (builtins.readDir ./hosts)));
    in
    {
      nixosConfigurations = inputs.fleet.lib.make (lib.genAttrs names (name: [ ./hosts/${name}.nix ])) { };
    };
}

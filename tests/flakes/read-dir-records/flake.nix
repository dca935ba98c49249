{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = builtins.mapAttrs (
        name: _: nixpkgs.lib.nixosSystem (import ./hosts/${name} nixpkgs)
      ) (builtins.readDir ./hosts);
    };
}

{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = builtins.mapAttrs (
        name: _: nixpkgs.lib.nixosSystem { modules = [ ./hosts/${name} ]; }
      ) (builtins.readDir ./hosts);
    };
}

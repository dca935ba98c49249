{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      systems = builtins.readDir ./systems;
    in
    {
      nixosConfigurations = lib.concatMapAttrs (
        system: _: lib.mapAttrs (name: _: lib.nixosSystem { modules = [ ./systems/${system}/${name} ]; }) (builtins.readDir ./systems/${system})
      ) systems;
    };
}

{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      mkHost = name: _: lib.nameValuePair name (lib.nixosSystem { modules = [ ./hosts/${name} ]; });
    in
    {
      nixosConfigurations = lib.mapAttrs' mkHost { };
    };
}

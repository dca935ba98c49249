{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      make = { name, value }: lib.optional (value == "directory") (
        lib.nameValuePair name (lib.nixosSystem { modules = [ ./hosts/${name} ]; })
      );
    in
    {
      nixosConfigurations = lib.listToAttrs (lib.concatMap make (lib.attrsToList (builtins.readDir ./hosts)));
    };
}

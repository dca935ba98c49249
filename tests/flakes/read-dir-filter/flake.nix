{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      directories = lib.filterAttrs (_: type: type == "directory") (builtins.readDir ./machines);
      names = builtins.attrNames directories;
    in
    {
      nixosConfigurations = builtins.listToAttrs (
        map (name: lib.nameValuePair name (lib.nixosSystem { modules = [ (./machines + "/${name}") ]; })) names
      ) // { installer = lib.nixosSystem { modules = [ ./installer.nix ]; }; };
    };
}

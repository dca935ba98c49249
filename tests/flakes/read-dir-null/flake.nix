{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      hosts = builtins.filter (name: name != null) (
        lib.mapAttrsToList (name: type: if type == "directory" then name else null) (builtins.readDir ./hosts)
      );
    in
    {
      nixosConfigurations = builtins.listToAttrs (
        map (name: {
          inherit name;
          value = lib.nixosSystem { modules = [ ./hosts/${name} ]; };
        }) hosts
      );
    };
}

{
  outputs =
    { nixpkgs, ... }:
    let
      mkNixosHost = name: nixpkgs.lib.nixosSystem { modules = [ ./hosts/${name} ]; };
    in
    {
      nixosConfigurations = {
        # one line for each
      };
    };
}

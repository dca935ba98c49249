{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      mkHost = name: lib.nixosSystem { modules = [ ./hosts/${name} ]; };
      old = lib.nixosSystem { modules = [ ./old.nix ]; };
    in
    {
      nixosConfigurations = {
        inherit old;
        fox = mkHost "fox";
        rescue = lib.nixosSystem { modules = [ ./rescue.nix { boot.kernelParams = [ "single" ]; } ]; };
        hare = mkHost "hare";
        mac.config = { };
        mac.options = { };
      };
    };
}

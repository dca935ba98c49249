{
  outputs =
    { nixpkgs, ... }:
    let
      egret = nixpkgs.lib.nixosSystem { modules = [ ./egret.nix ]; };
    in
    {
      nixosConfigurations = {
        egret = egret;
      };
    };
}

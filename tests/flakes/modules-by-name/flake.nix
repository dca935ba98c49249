{
  outputs =
    { self, nixpkgs, ... }:
    let
      mkHost =
        name: more: nixpkgs.lib.nixosSystem { modules = [ self.nixosModules.${name} ] ++ more; };
    in
    {
      nixosConfigurations = {
        teal = mkHost "teal" [ self.disks.teal ];
        eider = mkHost "eider" [ self.disks.eider ];
      };
      nixosModules = {
        teal = { };
        eider = { };
      };
      disks.teal = { };
      disks.eider = { };
    };
}

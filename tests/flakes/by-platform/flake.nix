{
  outputs =
    { nixpkgs, ... }:
    let
      make =
        name: of:
        nixpkgs.lib.nixosSystem { modules = [ (of.path or (./hosts + "/${name}")) ] ++ of.more or [ ]; };
      machines = {
        x86_64-linux = {
          garganey = { };
        };
        riscv64-linux = {
          smew = {
            path = ./hosts/smew/cross.nix;
            more = [ { nixpkgs.buildPlatform = "x86_64-linux"; } ];
          };
          teal = {
            path = ./hosts/teal/cross.nix;
            more = [ { nixpkgs.buildPlatform = "x86_64-linux"; } ];
          };
        };
      };
      all = builtins.foldl' (sum: of: sum // of) { } (builtins.attrValues machines);
    in
    {
      nixosConfigurations = builtins.mapAttrs make all;
    };
}

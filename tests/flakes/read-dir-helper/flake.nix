{
  outputs =
    { nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      hostsIn = { dir ? ./hosts }: lib.concatMapAttrs (file: type:
        if type == "regular" then { ${lib.removeSuffix ".nix" file} = lib.nixosSystem { modules = [ (dir + "/${file}") ]; }; } else { }
      ) (builtins.readDir dir);
    in
    {
      nixosConfigurations = hostsIn { };
    };
}

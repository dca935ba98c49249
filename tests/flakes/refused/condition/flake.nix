{
  outputs =
    { nixpkgs, ... }:
    let
      mkHost = name: nixpkgs.lib.nixosSystem { modules = [ ./${name} ]; };
    in
    {
      nixosConfigurations =
        if builtins.pathExists ./secrets then
          { crane = mkHost "crane"; }
        else
          { finch = mkHost "finch"; };
    };
}

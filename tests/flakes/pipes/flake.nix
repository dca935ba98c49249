{
  outputs =
    { nixpkgs, ... }:
    let
      toHost = name: nixpkgs.lib.nixosSystem <| { modules = [ ./${name}.nix ]; };
    in
    {
      nixosConfigurations =
        [
          "lovage" # |> is no operator here
          "sorrel"
        ]
        |> map (name: {
          inherit name;
          value = toHost name;
        })
        |> builtins.listToAttrs;
    };
}

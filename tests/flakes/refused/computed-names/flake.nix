{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = builtins.listToAttrs (
        map (n: {
          name = "node-${n}";
          value = nixpkgs.lib.nixosSystem { modules = [ ./node.nix ]; };
        }) [ "a" "b" ]
      );
    };
}

{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = builtins.listToAttrs (
        map
          (name: {
            inherit name;
            value = nixpkgs.lib.nixosSystem { modules = [ ./hosts/${name} ]; };
          })
          [
            "gorge"
            "heath"
          ]
      );
    };
}

{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = builtins.listToAttrs (
        map (host: {
          inherit (host) name;
          value = nixpkgs.lib.nixosSystem { modules = [ host.path ]; };
        }) [ ]
      );
    };
}

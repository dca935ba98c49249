{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = builtins.listToAttrs [
        {
          name = "islet";
          value = nixpkgs.lib.nixosSystem { modules = [ ./islet.nix ]; };
        }
        {
          name = "knoll";
          value = nixpkgs.lib.nixosSystem { modules = [ ./knoll.nix ]; };
        }
      ];
    };
}

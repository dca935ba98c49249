{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = nixpkgs.lib.genAttrs' [ "stilt" "avocet" ] (
        name: nixpkgs.lib.nameValuePair name (nixpkgs.lib.nixosSystem { modules = [ ./${name} ]; })
      );
    };
}

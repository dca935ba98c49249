{
  outputs =
    { nixpkgs, ... }@inputs:
    {
      nixosConfigurations = {
        ruff = import ./hosts/ruff { inherit inputs; };
      };
    };
}

{
  outputs =
    { haumea, nixpkgs, ... }@inputs:
    {
      nixosConfigurations = haumea.lib.load {
        src = ./hosts;
        inputs = { inherit nixpkgs inputs; };
      };
    };
}

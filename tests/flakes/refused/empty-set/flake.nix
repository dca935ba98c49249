{
  outputs =
    { nixpkgs, ... }:
    {
      nixosConfigurations = { };
    };
}

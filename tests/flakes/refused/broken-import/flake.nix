{
  outputs =
    inputs:
    {
      nixosConfigurations = import ./hosts.nix inputs;
    };
}

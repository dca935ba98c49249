{
  outputs =
    inputs:
    {
      nixosConfigurations = import ./machines inputs;
    };
}

{
  outputs =
    inputs:
    {
      nixosConfigurations = builtins.toString inputs.hosts;
    };
}

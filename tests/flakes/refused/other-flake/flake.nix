{
  outputs =
    inputs:
    {
      inherit (inputs.fleet) nixosConfigurations;
    };
}

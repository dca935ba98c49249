{
  outputs =
    { fleet, ... }@inputs:
    {
      nixosConfigurations = fleet.lib.hosts {
        inherit inputs;
        tern = { };
      };
    };
}

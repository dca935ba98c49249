{
  outputs =
    { nixpkgs, domain, ... }:
    {
      nixosConfigurations.${domain.name} = nixpkgs.lib.nixosSystem { modules = [ ./gate.nix ]; };
    };
}

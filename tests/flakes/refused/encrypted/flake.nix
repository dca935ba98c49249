{
  outputs =
    { nixpkgs, ... }:
    let
      secrets = import ./secrets.nix;
    in
    {
      nixosConfigurations = secrets.hosts;
    };
}

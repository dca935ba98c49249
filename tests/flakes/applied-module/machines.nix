{ platform }:
{ inputs, ... }:
{
  flake.nixosConfigurations = {
    siskin = inputs.nixpkgs.lib.nixosSystem { system = platform; modules = [ ./siskin.nix ]; };
  };
}

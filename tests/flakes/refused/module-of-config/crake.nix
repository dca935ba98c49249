{ config, ... }:
{
  flake.nixosConfigurations = config.flake.lib.mkNixos "crake";
}

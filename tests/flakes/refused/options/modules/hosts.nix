{ config, lib, ... }:
{
  options.fleet.hosts = lib.mkOption { type = lib.types.attrsOf lib.types.deferredModule; };
  config.flake.nixosConfigurations = lib.mapAttrs (name: module: lib.nixosSystem { modules = [ module ]; }) config.fleet.hosts;
}

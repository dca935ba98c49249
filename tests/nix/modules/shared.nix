# Imported twice below: a module that is named by its path counts once.
{ lib, ... }:
{
  options.seen = lib.mkOption { type = lib.types.listOf lib.types.str; };
  config.seen = [ "shared" ];
}

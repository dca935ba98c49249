# hostSpec.secretCategories -> sops-nix: a category counts once hosts have a file secrets/<category>.yaml.
{ config, lib, ... }:
let
  file = category: ../../../secrets + "/${category}.yaml";
  present = lib.filter (category: builtins.pathExists (file category)) config.hostSpec.secretCategories;
in
{
  config = lib.mkIf (present != [ ]) {
    sops.defaultSopsFile = lib.mkDefault (file (lib.head present));
    sops.age.keyFile = lib.mkDefault "/var/lib/sops-nix/key.txt";
  };
}

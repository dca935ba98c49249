# hostSpec.secretCategories -> sops-nix: a category counts once there is a file secrets/<category>.yaml.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  file = category: ../../../secrets + "/${category}.yaml";
  check = pkgs.writeShellApplication {
    name = "check-secrets";
    runtimeInputs = [
      pkgs.age
      pkgs.gawk
      pkgs.gnugrep
    ];
    text = builtins.readFile ../../agents/check-secrets.sh;
  };
  present = lib.filter (
    category: builtins.pathExists (file category)
  ) config.hostSpec.secretCategories;
in
{
  config = lib.mkIf (present != [ ]) {
    sops.defaultSopsFile = lib.mkDefault (file (lib.head present));
    sops.age.keyFile = lib.mkDefault "/var/lib/sops-nix/key.txt";

    # the harmless one that `seal-secrets` writes
    sops.secrets.greeting =
      lib.mkIf (lib.hasInfix "greeting: ENC[" (builtins.readFile (file (lib.head present))))
        {
          owner = config.hostSpec.primaryUsername;
          mode = "0400";
        };

    # a switch to secrets that this host cannot open would take what it has away
    system.preSwitchChecks.secrets = ''
      SECRETS_KEY=${config.sops.age.keyFile} ${lib.getExe check} ${
        # by the names that they have in the store, so that they are kept with the system
        lib.concatMapStringsSep " " (category: "${file category}") present
      }
    '';
  };
}

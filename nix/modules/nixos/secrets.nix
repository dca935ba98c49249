# hostSpec.secretCategories -> sops-nix: a category takes effect once secrets/<category>.yaml exists.
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

    # the harmless secret that `seal-secrets` writes
    sops.secrets.greeting =
      lib.mkIf (lib.hasInfix "greeting: ENC[" (builtins.readFile (file (lib.head present))))
        {
          owner = config.hostSpec.primaryUsername;
          mode = "0400";
        };

    # a switch to secrets that this host cannot decrypt would remove the ones it has
    system.preSwitchChecks.secrets = ''
      SECRETS_KEY=${config.sops.age.keyFile} ${lib.getExe check} ${
        # by their store paths, so that the files are kept with the system
        lib.concatMapStringsSep " " (category: "${file category}") present
      }
    '';
  };
}

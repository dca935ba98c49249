# myModules.system.boot.goldenGeneration: every boot is validated; what passes may become golden.
# Around the agents ../agents/golden-boot-validation.sh and ../agents/show-golden.sh.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.myModules.system.boot.goldenGeneration;
  unit = types.strMatching "[A-Za-z0-9@:_.\\-]+\\.(service|socket|target|timer|mount|path)";
  unavailable = config.lab.unavailableUnits or { };

  command =
    name: env:
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = [
        pkgs.coreutils
        pkgs.systemd
      ];
      runtimeEnv = env;
      text = builtins.readFile (../agents + "/${name}.sh");
    };
  show = command "show-golden" { };
  validate = command "golden-boot-validation" {
    GOLDEN_SERVICES = lib.concatStringsSep " " cfg.validateServices;
    GOLDEN_TIMEOUT = toString cfg.validationTimeout;
    GOLDEN_SHOW = lib.getExe show;
    # one line a unit: its name, a blank, the reason
    GOLDEN_UNAVAILABLE = lib.concatStringsSep "\n" (
      lib.mapAttrsToList (name: reason: "${name} ${reason}") unavailable
    );
  };
in
{
  options.myModules.system.boot.goldenGeneration = {
    enable = lib.mkEnableOption "a golden generation that a failed boot comes back to";
    validateServices = mkOption {
      type = types.listOf unit;
      default = [ ];
      example = [ "sshd.service" ];
      description = "Units that must be active for a boot to count as good.";
    };
    validationTimeout = mkOption {
      type = types.ints.positive;
      default = 60;
      description = "Seconds that these units have to become active.";
    };
    autoPinAfterBoot = mkOption {
      type = types.bool;
      default = false;
      description = "Whether a boot that passes validation becomes the golden generation by itself.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [
      show
      validate
    ];

    # Before boot-complete.target, which a failure keeps from being reached. Not after multi-user.target:
    # with that as well the two targets can close a cycle, and systemd then drops a unit.
    systemd.services.golden-boot-validation = {
      description = "Validation of this boot";
      wantedBy = [ "multi-user.target" ];
      requiredBy = [ "boot-complete.target" ];
      before = [ "boot-complete.target" ];
      after = cfg.validateServices;
      # a switch is no boot
      restartIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = lib.getExe validate;
        TimeoutStartSec = cfg.validationTimeout + 30;
      };
    };
  };
}

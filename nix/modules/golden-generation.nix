# myModules.system.boot.goldenGeneration: the boot default is a generation that is known to boot; a new one
# boots once, on trial, and becomes golden when that boot is good. Runs the agents ../agents/golden-*.sh.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib)
    mkDefault
    mkIf
    mkOption
    types
    ;
  cfg = config.myModules.system.boot.goldenGeneration;
  unit = types.strMatching "[A-Za-z0-9@:_.\\-]+\\.(service|socket|target|timer|mount|path)";
  reachability = config.myModules.system.reachability;
  unavailable = config.lab.unavailableUnits or { };
  loader = config.boot.loader;
  esp = loader.efi.efiSysMountPoint or "/boot";
  xbootldr = loader.systemd-boot.xbootldrMountPoint or null;
  boot = if xbootldr != null then xbootldr else esp;
  seconds = types.ints.positive;
  # units that start after multi-user.target, which wants the validation, or after the validation itself
  late = lib.intersectLists cfg.validateServices [
    "boot-complete.target"
    "default.target"
    "golden-boot-validation.service"
    "graphical.target"
    "nix-local-upgrade.service"
  ];

  # Each agent becomes one file: the shared parts, then its own script.
  command =
    name: parts: env:
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = [
        pkgs.coreutils
        pkgs.diffutils
        pkgs.gnugrep
        pkgs.gnused
        # for reachability.sh: a shell, ip and tc
        pkgs.bash
        pkgs.iproute2
        pkgs.jq
        (config.nix.package or pkgs.nix)
        pkgs.systemd
        pkgs.util-linux
      ];
      # the parts are shared, so an agent does not use every variable that they set
      excludeShellChecks = [
        "SC2034"
        "SC2154"
      ];
      runtimeEnv = {
        GOLDEN_ESP = esp;
        GOLDEN_BOOT = boot;
      }
      // env;
      text = lib.concatMapStringsSep "\n" (part: builtins.readFile (../agents + "/${part}.sh")) (
        [ "golden-lib" ] ++ parts ++ [ name ]
      );
    };
  services = reachability.environment // {
    GOLDEN_SERVICES = lib.concatStringsSep " " cfg.validateServices;
    GOLDEN_TIMEOUT = toString cfg.validationTimeout;
    GOLDEN_SETTLE = toString cfg.settleTime;
    # one line per unit: its name, a space, the reason
    GOLDEN_UNAVAILABLE = lib.concatStringsSep "\n" (
      lib.mapAttrsToList (name: reason: "${name} ${reason}") unavailable
    );
  };
  validate = command "golden-boot-validation" [ "reachability" "golden-services" ] (
    services
    // {
      GOLDEN_AUTO_PIN = lib.boolToString cfg.autoPinAfterBoot;
      GOLDEN_PANIC = toString cfg.panicTimeout;
      GOLDEN_WATCHDOG = toString cfg.watchdogTimeout;
    }
  );
  arm = command "golden-arm-trial" [ ] { };
  deadline = command "golden-trial-deadline" [ ] { GOLDEN_DEADLINE = toString cfg.trialTimeout; };
  cleared = command "golden-trial-cleared" [ ] { };
  resumed = command "golden-trial-resumed" [ ] { };
  unpin = command "unpin-golden" [ ] { };
in
{
  imports = [ ./reachability.nix ];

  options.myModules.system.boot.goldenGeneration = {
    enable = lib.mkEnableOption "a golden generation that a failed boot falls back to";
    validateServices = mkOption {
      type = types.listOf unit;
      default = [ ];
      example = [ "sshd.service" ];
      description = "Units that must be active for a boot to count as good.";
    };
    validationTimeout = mkOption {
      type = seconds;
      default = 60;
      description = "Seconds within which these units must become active.";
    };
    settleTime = mkOption {
      type = types.ints.unsigned;
      default = 5;
      description = "Seconds after which these units must still be active, without having been restarted.";
    };
    trialTimeout = mkOption {
      type = seconds;
      default = 300;
      description = "Seconds from its start after which a trial boot that was not validated counts as failed.";
    };
    panicTimeout = mkOption {
      type = seconds;
      default = 10;
      description = "Seconds from a kernel panic to the reboot.";
    };
    watchdogTimeout = mkOption {
      type = types.ints.unsigned;
      default = 30;
      description = "Seconds that systemd may be silent before the hardware watchdog resets the machine; 0 leaves it off.";
    };
    autoPinAfterBoot = mkOption {
      type = types.bool;
      default = false;
      description = "Whether a generation becomes golden automatically when its boot passes validation.";
    };
  };

  config = lib.mkMerge [
    (mkIf cfg.enable {
      assertions = [
        {
          # golden uses that boot loader's entries and EFI variables, and a kernel without a signature
          assertion = loader.systemd-boot.enable or false;
          message = "`myModules.system.boot.goldenGeneration` needs `boot.loader.systemd-boot.enable`: no other boot loader (GRUB, lanzaboote) starts what it keeps";
        }
        {
          # systemd would drop the validation, and every trial would miss its deadline
          assertion = late == [ ];
          message = "`myModules.system.boot.goldenGeneration.validateServices` has ${toString late}, which comes after the validation: name a unit of it, such as display-manager.service";
        }
      ];

      warnings = import ./kept.nix { inherit lib config; } "myModules.system.boot.goldenGeneration" [
        "/var/lib/golden-generation"
      ];

      environment.systemPackages = [
        arm
        validate
        (command "pin-golden" [ "reachability" "golden-services" ] services)
        (command "rollback-to-golden" [ ] { })
        (command "show-boot-status" [ ] { })
        (command "show-golden" [ ] { })
        unpin
      ];

      # Any change of the boot default puts the new generation on trial, by an upgrade or a manual rebuild.
      # $1 is the generation that the installer was called for.
      boot.loader.systemd-boot = {
        extraInstallCommands = ''
          ${lib.getExe arm} "$1"
        '';
      }
      # A second safety net, where NixOS has it (26.11): the boot loader skips an entry whose tries are used up.
      # It is the only one before the first golden generation; after that, a failed trial falls back at once.
      // lib.optionalAttrs (options.boot.loader.systemd-boot or { } ? bootCounting) {
        bootCounting.enable = mkDefault true;
      };

      # A stuck boot must end in a reboot: after a panic, a failure of the first stage, or a hang
      boot.kernelParams = [
        "panic=${toString cfg.panicTimeout}"
        "boot.panic_on_fail"
      ];
      systemd.settings.Manager = mkIf (cfg.watchdogTimeout > 0) {
        RuntimeWatchdogSec = mkDefault "${toString cfg.watchdogTimeout}s";
        RebootWatchdogSec = mkDefault "2min";
      };
      boot.initrd.systemd.settings.Manager = mkIf (cfg.watchdogTimeout > 0) {
        RuntimeWatchdogSec = mkDefault "${toString cfg.watchdogTimeout}s";
      };

      # Before boot-complete.target, so that a failure keeps that target from being reached. Not also after
      # multi-user.target: the two targets can then form a cycle, and systemd breaks it by dropping a unit.
      systemd.services.golden-boot-validation = {
        description = "Validation of this boot";
        wantedBy = [ "multi-user.target" ];
        requiredBy = [ "boot-complete.target" ];
        # an upgrade that ran earlier could find the profile while it is being set back to golden
        before = [
          "boot-complete.target"
          "nix-local-upgrade.service"
          "nix-local-upgrade-reboot.service"
        ];
        # the check of reachability must run behind the firewall
        after = cfg.validateServices ++ [
          "firewall.service"
          "nftables.service"
        ];
        # a switch must not rerun the validation of the boot
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = lib.getExe validate;
          # 150 s more than its limits, to write golden's files or to rewrite the boot entries
          TimeoutStartSec = cfg.validationTimeout + cfg.settleTime + reachability.timeout + 150;
        };
      };

      # A separate unit, because systemd does not stop a failed one, and the validation may fail
      systemd.services.golden-trial-cleared = {
        description = "Record of a trial that was cancelled before the reboot";
        wantedBy = [ "multi-user.target" ];
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStop = lib.getExe cleared;
        };
      };

      # These targets are reached when the host has woken up
      systemd.services.golden-trial-resumed = rec {
        description = "Rearming of a trial after hibernation";
        wantedBy = [
          "hibernate.target"
          "hybrid-sleep.target"
          "suspend-then-hibernate.target"
        ];
        after = wantedBy;
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          ExecStart = lib.getExe resumed;
        };
      };

      # This unit marks the boot as good in the boot loader's counter, once. When a switch to another systemd
      # reruns it, it fails because the counter is gone (nixpkgs#561855), and an upgrade would count that as
      # its own failure.
      systemd.services.systemd-bless-boot = mkIf (loader.systemd-boot.bootCounting.enable or false) {
        restartIfChanged = false;
      };

      # Independent of everything that may hang or fail: no dependencies, and emergency mode does not stop it
      systemd.timers.golden-trial-deadline = {
        description = "Deadline of a trial boot";
        wantedBy = [ "sysinit.target" ];
        unitConfig = {
          DefaultDependencies = false;
          IgnoreOnIsolate = true;
        };
        timerConfig = {
          # not counted from power-on: the first stage may wait a long time for a person to type a passphrase
          OnStartupSec = cfg.trialTimeout;
          AccuracySec = 1;
        };
      };
      systemd.services.golden-trial-deadline = {
        description = "End of a trial boot that got stuck";
        wantedBy = [ "emergency.target" ];
        restartIfChanged = false;
        unitConfig = {
          DefaultDependencies = false;
          IgnoreOnIsolate = true;
          # the user asked for emergency or rescue mode
          ConditionKernelCommandLine = [
            "!emergency"
            "!-b"
            "!rescue"
            "!single"
            "!s"
            "!S"
            "!1"
            "!systemd.unit=emergency.target"
            "!systemd.unit=rescue.target"
          ];
        };
        serviceConfig = {
          Type = "oneshot";
          ExecStart = lib.getExe deadline;
        };
      };
    })

    # Older NixOS releases run these commands even if writing the entries failed, and return only the last exit status
    (mkIf (loader.systemd-boot.enable or false) {
      boot.loader.systemd-boot.extraInstallCommands = lib.mkBefore ''
        [ "$?" = 0 ] || exit 1
      '';
    })

    # When this module is turned off, the boot default must not stay at the former golden generation
    (mkIf (!cfg.enable && loader.systemd-boot.enable or false) {
      boot.loader.systemd-boot.extraInstallCommands = ''
        [ ! -e /var/lib/golden-generation/golden.json ] && [ ! -e ${boot}/EFI/golden ] || ${lib.getExe unpin} --turned-off
      '';
    })
  ];
}

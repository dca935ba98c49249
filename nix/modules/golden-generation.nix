# myModules.system.boot.goldenGeneration: the boot default is a generation that is known to boot; a new one
# boots once, on trial, and becomes golden when that boot is good. Around the agents ../agents/golden-*.sh.
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
  # multi-user.target wants the validation, and these come after that target, or after the validation itself
  late = lib.intersectLists cfg.validateServices [
    "boot-complete.target"
    "default.target"
    "golden-boot-validation.service"
    "graphical.target"
    "nix-local-upgrade.service"
  ];

  # Each agent is one file: what they share, then its own.
  command =
    name: parts: env:
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = [
        pkgs.coreutils
        pkgs.diffutils
        pkgs.gnugrep
        pkgs.gnused
        # reachability.sh: a shell, and ip and tc
        pkgs.bash
        pkgs.iproute2
        pkgs.jq
        (config.nix.package or pkgs.nix)
        pkgs.systemd
        pkgs.util-linux
      ];
      # the parts are shared, so not each of them uses all that it sets
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
    # one line a unit: its name, a blank, the reason
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
    enable = lib.mkEnableOption "a golden generation that a failed boot comes back to";
    validateServices = mkOption {
      type = types.listOf unit;
      default = [ ];
      example = [ "sshd.service" ];
      description = "Units that must be active for a boot to count as good.";
    };
    validationTimeout = mkOption {
      type = seconds;
      default = 60;
      description = "Seconds that these units have to become active.";
    };
    settleTime = mkOption {
      type = types.ints.unsigned;
      default = 5;
      description = "Seconds after which they must still be active, and not have been restarted.";
    };
    trialTimeout = mkOption {
      type = seconds;
      default = 300;
      description = "Seconds from its start after which a boot on trial that was not validated has failed.";
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
      description = "Whether a boot that passes validation becomes the golden generation by itself.";
    };
  };

  config = lib.mkMerge [
    (mkIf cfg.enable {
      assertions = [
        {
          # golden has an entry, a kernel without a signature and variables of that boot loader
          assertion = loader.systemd-boot.enable or false;
          message = "`myModules.system.boot.goldenGeneration` needs `boot.loader.systemd-boot.enable`: no other boot loader (GRUB, lanzaboote) starts what it keeps";
        }
        {
          # systemd would drop the validation, and each trial would pass its time
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

      # Whatever makes a generation the boot default puts it on trial: an upgrade, or a rebuild by hand.
      # $1 is the generation that the installer was called for.
      boot.loader.systemd-boot = {
        extraInstallCommands = ''
          ${lib.getExe arm} "$1"
        '';
      }
      # A second net, where NixOS has it (26.11): an entry whose tries are used up is passed over. It is what
      # there is before the first golden; with one, a trial that failed comes back to it at once.
      // lib.optionalAttrs (options.boot.loader.systemd-boot or { } ? bootCounting) {
        bootCounting.enable = mkDefault true;
      };

      # A boot that goes nowhere must end: at a panic, in the first stage, and in a hang
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

      # Before boot-complete.target, which a failure keeps from being reached. Not after multi-user.target:
      # with that as well the two targets can close a cycle, and systemd then drops a unit.
      systemd.services.golden-boot-validation = {
        description = "Validation of this boot";
        wantedBy = [ "multi-user.target" ];
        requiredBy = [ "boot-complete.target" ];
        # an upgrade would find the profile on its way back to golden
        before = [
          "boot-complete.target"
          "nix-local-upgrade.service"
          "nix-local-upgrade-reboot.service"
        ];
        # the host is not reached through a firewall that is not there yet
        after = cfg.validateServices ++ [
          "firewall.service"
          "nftables.service"
        ];
        # a switch is no boot
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = lib.getExe validate;
          # with the time to write golden's files, or the boot entries anew
          TimeoutStartSec = cfg.validationTimeout + cfg.settleTime + reachability.timeout + 150;
        };
      };

      # A unit of its own: systemd stops none that has failed, as the validation may
      systemd.services.golden-trial-cleared = {
        description = "Word of a trial that was taken back";
        wantedBy = [ "multi-user.target" ];
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStop = lib.getExe cleared;
        };
      };

      # After such a target a host has come back from its sleep
      systemd.services.golden-trial-resumed = rec {
        description = "Trial that was left on the way to a sleep";
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

      # The unit that tells the boot loader's counters that this boot was good, once. Run again by a switch to
      # another systemd it fails, as the counter is gone (nixpkgs#561855), and an upgrade would take that for
      # its own failure.
      systemd.services.systemd-bless-boot = mkIf (loader.systemd-boot.bootCounting.enable or false) {
        restartIfChanged = false;
      };

      # Outside of all that may hang or fail: no dependency, and emergency mode leaves it alone
      systemd.timers.golden-trial-deadline = {
        description = "Deadline of a boot on trial";
        wantedBy = [ "sysinit.target" ];
        unitConfig = {
          DefaultDependencies = false;
          IgnoreOnIsolate = true;
        };
        timerConfig = {
          # not from when the machine was turned on: the first stage may wait for a passphrase, and for whoever has it
          OnStartupSec = cfg.trialTimeout;
          AccuracySec = 1;
        };
      };
      systemd.services.golden-trial-deadline = {
        description = "End of a boot on trial that got stuck";
        wantedBy = [ "emergency.target" ];
        restartIfChanged = false;
        unitConfig = {
          DefaultDependencies = false;
          IgnoreOnIsolate = true;
          # somebody asked for it
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

    # Older releases of NixOS run these commands whatever became of the entries, and take how the last one ends for all
    (mkIf (loader.systemd-boot.enable or false) {
      boot.loader.systemd-boot.extraInstallCommands = lib.mkBefore ''
        [ "$?" = 0 ] || exit 1
      '';
    })

    # Turned off, the boot default must not stay at what was golden once
    (mkIf (!cfg.enable && loader.systemd-boot.enable or false) {
      boot.loader.systemd-boot.extraInstallCommands = ''
        [ ! -e /var/lib/golden-generation/golden.json ] && [ ! -e ${boot}/EFI/golden ] || ${lib.getExe unpin} --turned-off
      '';
    })
  ];
}

# myModules.services.autoUpgrade: nix-local-upgrade.service and its timer, which run the agent
# ../agents/nix-local-upgrade.sh, put together from several parts.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.myModules.services.autoUpgrade;
  sync = config.myModules.services.chezmoiSync or { };
  loader = config.boot.loader;
  inherit (loader.grub) mirroredBoots;
  time = types.strMatching "([01][0-9]|2[0-3]):[0-5][0-9]";

  # the directory in which the boot loader keeps kernels
  boot =
    if loader.systemd-boot.xbootldrMountPoint or null != null then
      loader.systemd-boot.xbootldrMountPoint
    # GRUB reads any file system and puts only itself on the EFI system partition
    else if loader.grub.enable or false && mirroredBoots != [ ] then
      (lib.head mirroredBoots).path
    else
      loader.efi.efiSysMountPoint or "/boot";

  rebootsLater = cfg.allowReboot && cfg.rebootWindow != null;

  # the host's own Nix: its nix.conf and store are written for it, and its flake may need it
  nix = config.nix.package or pkgs.nix;
  fsync =
    !(lib.hasInfix "lix" (nix.pname or "nix")) && lib.versionAtLeast (nix.version or "2.25") "2.25";

  # A check that names a unit which this guest cannot have is not run and never counted as passed.
  unavailable = config.lab.unavailableUnits or { };
  reasons = check: lib.filter (unit: lib.hasInfix unit check) (lib.attrNames unavailable);

  parts = [
    "durable-git"
    "reasons"
    "build-reasons"
    "upgrade-status"
    "upgrade-repository"
    "upgrade-remote"
    "reachability"
    "upgrade-services"
    "upgrade-system"
    "nix-local-upgrade"
  ];

  agent = pkgs.writeShellApplication {
    name = "nix-local-upgrade";
    runtimeInputs = [
      # runs hooks and checks
      pkgs.bash
      pkgs.coreutils
      pkgs.diffutils
      pkgs.findutils
      pkgs.git
      pkgs.gnugrep
      pkgs.gnused
      pkgs.iproute2
      pkgs.jq
      pkgs.jujutsu
      nix
      pkgs.openssh
      pkgs.systemd
      pkgs.util-linux
    ];
    # lists of commands are passed as JSON, because a command may span lines; the quotes are data
    excludeShellChecks = [
      "SC2089"
      "SC2090"
    ];
    runtimeEnv = {
      UPGRADE_MODE = cfg.mode;
      UPGRADE_USER = cfg.user;
      UPGRADE_REPOSITORY = cfg.repository;
      UPGRADE_FLAKE_DIRECTORY = cfg.flakeDirectory;
      UPGRADE_FLAKE_URL = toString cfg.flakeUrl;
      UPGRADE_BRANCH = cfg.branch;
      UPGRADE_ATTRIBUTE = cfg.attribute;
      UPGRADE_FETCH_TIMEOUT = toString cfg.fetchTimeout;
      UPGRADE_HOOK_LIMIT = toString cfg.hookTimeout;
      UPGRADE_BUILD_LIMIT = toString cfg.buildTimeout;
      UPGRADE_SWITCH_LIMIT = toString cfg.switchTimeout;
      UPGRADE_LOCK_LIMIT = toString cfg.lockTimeout;
      UPGRADE_HOST = config.networking.hostName;
      UPGRADE_DOTFILES = lib.optionalString (
        sync.enable or false && sync.syncBeforeUpdate
      ) "chezmoi-pre-update.service";
      UPGRADE_HOOKS = builtins.toJSON cfg.preUpdateHooks;
      UPGRADE_BUILD_FIRST = lib.boolToString cfg.buildBeforeSwitch;
      UPGRADE_CHECKS = builtins.toJSON (lib.filter (check: reasons check == [ ]) cfg.validationChecks);
      UPGRADE_CHECKS_NA = builtins.toJSON (lib.filter (check: reasons check != [ ]) cfg.validationChecks);
      # seconds that new services must stay up, and seconds that checks have to succeed
      UPGRADE_SETTLE = toString cfg.settleTime;
      UPGRADE_PATIENCE = "20";
      UPGRADE_ON_FAILURE = cfg.onValidationFailure;
      UPGRADE_BOOT = boot;
      # if it is not mounted, an upgrade would write into the directory underneath
      UPGRADE_BOOT_MOUNTED = lib.boolToString ((config.fileSystems or { }) ? ${boot});
      UPGRADE_KEEP_GENERATIONS = toString cfg.keepGenerations;
      UPGRADE_KEEP_DAYS = toString cfg.keepDays;
      UPGRADE_ALLOW_REBOOT = lib.boolToString cfg.allowReboot;
      UPGRADE_REBOOT_WINDOW = lib.optionalString (
        cfg.rebootWindow != null
      ) "${cfg.rebootWindow.lower}-${cfg.rebootWindow.upper}";
    }
    // config.myModules.system.reachability.environment
    // lib.optionalAttrs (cfg.phaseHook != null) { UPGRADE_PHASE_HOOK = cfg.phaseHook; };
    text = lib.concatMapStrings (part: builtins.readFile (../agents + "/${part}.sh")) parts;
  };
in
{
  imports = [ ./reachability.nix ];

  options.myModules.services.autoUpgrade = {
    enable = lib.mkEnableOption "upgrades of this host from its own repository";
    mode = mkOption {
      type = types.enum [
        "local"
        "remote"
      ];
      default = "local";
      description = "Upgrade from `repository`, brought up to date first (`local`), or from `flakeUrl` (`remote`).";
    };
    user = mkOption {
      type = types.nonEmptyStr;
      default = config.hostSpec.primaryUsername or "root";
      defaultText = lib.literalExpression "config.hostSpec.primaryUsername";
      description = "Owner of the repository; fetching and building run as this user, switching as root.";
    };
    repository = mkOption {
      type = types.path;
      default = "${config.hostSpec.home or "/root"}/nix-config";
      defaultText = lib.literalExpression ''"''${config.hostSpec.home}/nix-config"'';
      description = "Colocated jj repository with the flake of this host.";
    };
    flakeDirectory = mkOption {
      # relative, and without a `/` at the end
      type = types.strMatching "[^/]+(/[^/]+)*";
      default = ".";
      example = "nixos";
      description = ''
        Directory of `flake.nix` within `repository`, in mode `local`. In mode `remote`, `flakeUrl` names it
        as `?dir=`.
      '';
    };
    flakeUrl = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "git+ssh://git@example.org/config";
      description = "Flake to upgrade from in mode `remote`.";
    };
    branch = mkOption {
      type = types.nonEmptyStr;
      default = "main";
      description = "Branch (bookmark) that is deployed.";
    };
    attribute = mkOption {
      type = types.nonEmptyStr;
      default = "${
        if config ? lab.guest then "labConfigurations" else "nixosConfigurations"
      }.\"${config.networking.hostName}\".config.system.build.toplevel";
      defaultText = lib.literalExpression ''"nixosConfigurations.''${hostName}.config.system.build.toplevel"'';
      description = "Attribute of the flake that is this host's system.";
    };
    fetchTimeout = mkOption {
      type = types.ints.positive;
      default = 60;
      description = ''
        Seconds after which a fetch is stopped and the remote counts as unreachable. The next run starts the
        fetch from the beginning: allow more where the line is slow and the configuration is large.
      '';
    };
    hookTimeout = mkOption {
      type = types.ints.positive;
      default = 600;
      description = "Seconds after which a pre-update hook that is still running is stopped and counts as failed.";
    };
    buildTimeout = mkOption {
      type = types.ints.positive;
      default = 4 * 60 * 60;
      description = "Seconds after which a build that is still running is stopped and counts as failed.";
    };
    switchTimeout = mkOption {
      type = types.ints.positive;
      default = 900;
      description = "Seconds after which a switch that is still running is stopped and counts as failed.";
    };
    lockTimeout = mkOption {
      type = types.ints.positive;
      # systemd stops the upgrade at this age, so a limit below buildTimeout would cut every long build off
      default = cfg.buildTimeout + 2 * 60 * 60;
      defaultText = lib.literalExpression "config.myModules.services.autoUpgrade.buildTimeout + 2 * 60 * 60";
      description = ''
        Seconds after which a process that holds the lock of the upgrade, or of a switch, counts as hung: until
        then an upgrade that finds the lock held ends successfully as `locked`, afterwards it fails. A run of
        the upgrade itself is stopped at that age.
      '';
    };
    settleTime = mkOption {
      type = types.ints.unsigned;
      default = 20;
      description = ''
        Seconds for which services that a switch has started must stay up before they count as good. A switch
        that starts none is judged after 3 seconds at most.
      '';
    };
    schedule = mkOption {
      type = types.nonEmptyStr;
      default = "daily";
      example = "hourly";
      description = "When to upgrade, as a systemd calendar event.";
    };
    randomizedDelay = mkOption {
      type = types.nonEmptyStr;
      default = "10min";
      description = "The timer waits up to this long, so that hosts do not upgrade in the same second.";
    };
    resumeDelay = mkOption {
      type = types.nonEmptyStr;
      default = "5min";
      example = "1h";
      description = ''
        How long after a boot an upgrade that a power cut or a crash has ended goes on, as a systemd time span. A
        boot that follows no such upgrade starts none.
      '';
    };
    preUpdateHooks = mkOption {
      type = types.listOf types.nonEmptyStr;
      default = [ ];
      description = "Shell commands to run before anything else; one that fails ends the upgrade.";
    };
    buildBeforeSwitch = mkOption {
      type = types.bool;
      default = true;
      description = "Whether to build, and to check for free space on /boot, as separate steps before the switch.";
    };
    phaseHook = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "notify-me";
      description = "Shell command to run at each phase's start, with the phase's name as its last argument.";
    };
    validationChecks = mkOption {
      type = types.listOf types.nonEmptyStr;
      default = [ ];
      example = [ "systemctl --quiet is-active sshd.service" ];
      description = "Shell commands that must succeed after the switch.";
    };
    onValidationFailure = mkOption {
      type = types.enum [
        "rollback"
        "notify"
        "ignore"
      ];
      default = "rollback";
      description = "What to do when a check fails: restore the previous state, keep the new one and report a failure, or only note it.";
    };
    keepGenerations = mkOption {
      type = types.ints.positive;
      default = 5;
      description = "Minimum number of generations to keep.";
    };
    keepDays = mkOption {
      type = types.ints.unsigned;
      default = 7;
      description = "Days for which generations are kept.";
    };
    allowReboot = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to reboot after an upgrade that changes kernel or initrd.";
    };
    rebootWindow = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            lower = mkOption {
              type = time;
              example = "01:00";
              description = "Start of the window, HH:MM.";
            };
            upper = mkOption {
              type = time;
              example = "05:00";
              description = "End of the window, HH:MM; before `lower` it means the next day.";
            };
          };
        }
      );
      default = null;
      description = ''
        When reboots are allowed; null means at any time. A reboot that is due outside this window is made at
        its start, by nix-local-upgrade-reboot.timer.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.mode == "remote" -> cfg.flakeUrl != null;
        message = "`myModules.services.autoUpgrade.flakeUrl` must be set when `mode` is \"remote\"";
      }
      {
        # from a `git+` URL the agent fetches `branch` itself
        assertion =
          cfg.mode == "remote" && lib.hasPrefix "git+" (toString cfg.flakeUrl)
          -> builtins.match ".*[?&](ref|rev)=.*" (toString cfg.flakeUrl) == null;
        message = "`myModules.services.autoUpgrade.flakeUrl` must not have `ref=` or `rev=`: the branch that is followed is set by `branch`";
      }
    ];

    warnings =
      # mode "remote" has no jj clone
      lib.optionals (cfg.mode == "local") (
        import ./needs.nix { inherit lib pkgs; } "myModules.services.autoUpgrade" {
          jujutsu = "0.36"; # rebase --onto
        }
      )
      ++ import ./kept.nix { inherit lib config; } "myModules.services.autoUpgrade" (
        [ "/var/lib/nix-local-upgrade" ] ++ lib.optional (cfg.mode == "local") (toString cfg.repository)
      );

    environment.systemPackages = [ agent ];

    # a power cut after a build must not leave truncated files that Nix considers complete; a Nix that does
    # not know the setting, such as Lix, refuses nix.conf
    nix.settings.fsync-store-paths = lib.mkIf fsync (lib.mkDefault true);

    systemd.services.nix-local-upgrade = {
      description = "Upgrade of this host from its repository";
      # the agent itself starts the dotfile sync, once it holds the lock and its hooks have run
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      # the upgrade itself runs the switch, so the switch must not restart it
      restartIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      # the host's proxy settings, and a home so that root's git settings are found, as in system.autoUpgrade:
      # systemd sets no HOME for units that run as root
      environment = {
        HOME = "/root";
      }
      // (config.nix.envVars or { })
      // (config.networking.proxy.envVars or { });
      # a NixOS unit has almost nothing on its PATH, but hooks and checks are written as for a shell
      path = [
        "/run/wrappers"
        "/run/current-system/sw"
      ];
      serviceConfig = {
        Type = "oneshot";
        ExecStart = lib.getExe agent;
        StateDirectory = "nix-local-upgrade";
        # whatever the agent is waiting for; the next run undoes what this one had begun
        TimeoutStartSec = cfg.lockTimeout;
      };
    };

    systemd.services.nix-local-upgrade-reboot = lib.mkIf rebootsLater {
      description = "Reboot that an upgrade deferred to the reboot window";
      restartIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${lib.getExe agent} --reboot";
        StateDirectory = "nix-local-upgrade";
      };
    };

    systemd.timers.nix-local-upgrade-reboot = lib.mkIf rebootsLater {
      description = "Start of the reboot window";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = "*-*-* ${cfg.rebootWindow.lower or ""}";
        # a host that was off at that time checks once it is up; outside the window the agent does nothing
        Persistent = true;
      };
    };

    # The schedule may be a day away, and until then the host would run what nobody has validated.
    systemd.timers.nix-local-upgrade-resume = {
      description = "Resume an upgrade that ended with the last boot";
      wantedBy = [ "timers.target" ];
      unitConfig.ConditionPathExists = [
        "/var/lib/nix-local-upgrade/transaction.json"
        # every switch starts timers.target again: an upgrade of this boot is not resumed
        "!/run/nix-local-upgrade.lock"
      ];
      timerConfig = {
        OnBootSec = cfg.resumeDelay;
        Unit = "nix-local-upgrade.service";
      };
    };

    systemd.timers.nix-local-upgrade = {
      description = "Schedule of nix-local-upgrade";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.schedule;
        RandomizedDelaySec = cfg.randomizedDelay;
        Persistent = true;
      };
    };
  };
}

# myModules.services.chezmoiSync: synchronizes the primary user's dotfiles before each upgrade, by the
# agent ../agents/chezmoi-sync.sh.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.myModules.services.chezmoiSync;
  upgrade = config.myModules.services.autoUpgrade or { };
  home = config.users.users.${cfg.user}.home or "/home/${cfg.user}";

  # one place, so that the unit and the user's own runs share the state
  stateDirectory = "/var/lib/chezmoi-sync";

  command =
    name: parts:
    pkgs.writeShellApplication {
      inherit name;
      runtimeInputs = [
        pkgs.bash
        pkgs.chezmoi
        pkgs.coreutils
        pkgs.diffutils
        pkgs.findutils
        pkgs.git
        pkgs.gnugrep
        pkgs.gnused
        pkgs.gnutar
        pkgs.jq
        pkgs.jujutsu
        pkgs.openssh
        pkgs.util-linux
      ];
      runtimeEnv = {
        CHEZMOI_REPO_URL = toString cfg.repoUrl;
        # empty where the host does not upgrade from a clone
        CHEZMOI_UPGRADE_REPOSITORY = lib.optionalString (
          upgrade.enable or false && upgrade.mode or "" == "local"
        ) upgrade.repository;
        CHEZMOI_BRANCH = cfg.branch;
        CHEZMOI_HOST = config.networking.hostName;
        CHEZMOI_AUTO_COMMIT = lib.boolToString cfg.autoCommit;
        CHEZMOI_AUTO_PUSH = lib.boolToString cfg.autoPush;
        CHEZMOI_STATE = stateDirectory;
        CHEZMOI_NETWORK_LIMIT = toString cfg.networkTimeout;
        CHEZMOI_APPLY_LIMIT = toString cfg.applyTimeout;
        CHEZMOI_KEEP_LIMIT = toString cfg.keepLimit;
      };
      text = lib.concatMapStrings (part: builtins.readFile (../agents + "/${part}.sh")) (
        parts ++ [ name ]
      );
    };
  agent = command "chezmoi-sync" [
    "durable-git"
    "reasons"
    "chezmoi-state"
    "chezmoi-ask"
    "chezmoi-kept"
    "chezmoi-keep"
    "chezmoi-report"
    "chezmoi-commands"
    "chezmoi-source"
    "chezmoi-capture"
    "chezmoi-integrate"
    "chezmoi-conflicts"
  ];
in
{
  options.myModules.services.chezmoiSync = {
    enable = lib.mkEnableOption "synchronizing dotfiles by chezmoi and jj";
    user = mkOption {
      type = types.nonEmptyStr;
      default = config.hostSpec.primaryUsername or "root";
      defaultText = lib.literalExpression "config.hostSpec.primaryUsername";
      description = "User whose dotfiles are synchronized.";
    };
    repoUrl = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "git://10.0.3.100/dotfiles.git";
      description = "Remote of the dotfiles; null means that the repository's own remote is used.";
    };
    branch = mkOption {
      type = types.nonEmptyStr;
      default = "main";
      description = "Branch (bookmark) that hosts share.";
    };
    syncBeforeUpdate = mkOption {
      type = types.bool;
      default = true;
      description = "Whether dotfiles are synchronized before each upgrade.";
    };
    autoCommit = mkOption {
      type = types.bool;
      default = true;
      description = "Whether local edits are captured in a commit.";
    };
    autoPush = mkOption {
      type = types.bool;
      default = true;
      description = "Whether captured edits are pushed.";
    };
    networkTimeout = mkOption {
      type = types.ints.positive;
      default = 60;
      description = ''
        Seconds after which a clone, a fetch or a push is stopped and the remote counts as unreachable. The next
        run starts it from the beginning: allow more where the line is slow and the dotfiles are large.
      '';
    };
    applyTimeout = mkOption {
      type = types.ints.positive;
      default = 15 * 60;
      description = "Seconds after which `chezmoi apply`, including the user's own scripts, is stopped.";
    };
    keepLimit = mkOption {
      type = types.ints.positive;
      default = 256 * 1024 * 1024;
      description = ''
        Total size, in bytes, of the files that are backed up before the dotfiles change them. A file that does
        not fit is left unchanged and named in the status.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    warnings =
      import ./needs.nix { inherit lib pkgs; } "myModules.services.chezmoiSync" {
        chezmoi = "2.66"; # apply --less-interactive
        git = "2.45"; # for-each-ref --include-root-refs
        jujutsu = "0.36"; # rebase --onto
      }
      ++ import ./kept.nix { inherit lib config; } "myModules.services.chezmoiSync" [ stateDirectory ];

    environment.systemPackages = [
      agent
      (command "chezmoi-status" [
        "chezmoi-state"
        "chezmoi-ask"
      ])
      (command "chezmoi-show-conflicts" [
        "chezmoi-state"
        "chezmoi-ask"
      ])
      (command "chezmoi-restore-kept" [
        "chezmoi-state"
        "chezmoi-kept"
      ])
    ];
    systemd.tmpfiles.rules = [ "d ${stateDirectory} 0755 ${cfg.user} - -" ];

    # The upgrade starts this unit first and then goes on, whatever its result: dotfiles that wait for the
    # user are no reason to keep an old system. After a conflict the unit stays failed, and so visible.
    systemd.services.chezmoi-pre-update = {
      description = "Synchronization of dotfiles before an upgrade";
      before = lib.optional cfg.syncBeforeUpdate "nix-local-upgrade.service";
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      # an upgrade does not wait for a slow apply, and its switch would stop that halfway and wait for a new one
      restartIfChanged = false;
      environment = config.networking.proxy.envVars or { };
      # the user's own scripts and templates run in this unit, with the PATH of a login
      path = [
        "/run/wrappers"
        "${home}/.nix-profile"
        "${home}/.local/state/nix/profile"
        "/etc/profiles/per-user/${cfg.user}"
        "/run/current-system/sw"
      ];
      serviceConfig = {
        Type = "oneshot";
        User = cfg.user;
        ExecStart = lib.getExe agent;
        # more than the sum of the steps' own limits, for the time that those do not cover
        TimeoutStartSec = 15 * 60 + 4 * cfg.networkTimeout + cfg.applyTimeout;
      };
    };
  };
}

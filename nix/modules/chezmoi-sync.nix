# myModules.services.chezmoiSync: dotfiles of the primary user, kept in step before each upgrade.
# Around the agent ../agents/chezmoi-sync.sh.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.myModules.services.chezmoiSync;

  agent = pkgs.writeShellApplication {
    name = "chezmoi-sync";
    runtimeInputs = [
      pkgs.chezmoi
      pkgs.coreutils
      pkgs.git
      pkgs.jujutsu
    ];
    runtimeEnv = {
      CHEZMOI_REPO_URL = toString cfg.repoUrl;
      CHEZMOI_BRANCH = cfg.branch;
      CHEZMOI_AUTO_COMMIT = lib.boolToString cfg.autoCommit;
      CHEZMOI_AUTO_PUSH = lib.boolToString cfg.autoPush;
    };
    text = builtins.readFile ../agents/chezmoi-sync.sh;
  };
in
{
  options.myModules.services.chezmoiSync = {
    enable = lib.mkEnableOption "synchronizing dotfiles by chezmoi and jj";
    user = mkOption {
      type = types.nonEmptyStr;
      default = config.hostSpec.primaryUsername or "root";
      defaultText = lib.literalExpression "config.hostSpec.primaryUsername";
      description = "Whose dotfiles they are.";
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
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ agent ];

    systemd.services.chezmoi-pre-update = {
      description = "Synchronization of dotfiles before an upgrade";
      before = lib.optional cfg.syncBeforeUpdate "nix-local-upgrade.service";
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      serviceConfig = {
        Type = "oneshot";
        User = cfg.user;
        ExecStart = lib.getExe agent;
      };
    };
  };
}

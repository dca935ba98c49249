# hostSpec: this host's identity, from which other modules derive their defaults.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.hostSpec;
in
{
  options.hostSpec = {
    hostName = mkOption {
      type = types.strMatching "[a-z]([a-z0-9-]{0,61}[a-z0-9])?";
      example = "sorrow";
      description = "Host name; also the name of the host's folder and of its flake output.";
    };
    primaryUsername = mkOption {
      type = types.strMatching "[a-z_][a-z0-9_.-]{0,30}";
      example = "rain";
      description = "The main user's account: member of wheel, owner of the repository and the dotfiles.";
    };
    home = mkOption {
      type = types.path;
      default = "/home/${cfg.primaryUsername}";
      defaultText = lib.literalExpression ''"/home/''${config.hostSpec.primaryUsername}"'';
      description = "Home folder of the primary user.";
    };
    secretCategories = mkOption {
      type = types.listOf types.nonEmptyStr;
      default = [ ];
      example = [ "base" ];
      description = "Groups of secrets that this host may decrypt.";
    };
  };

  config = {
    networking.hostName = cfg.hostName;
    users.users.${cfg.primaryUsername} = {
      isNormalUser = true;
      home = cfg.home;
      extraGroups = [ "wheel" ];
    };
  };
}

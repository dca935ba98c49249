# What the lab sets on a host while it breaks it.
{
  lib,
  options,
  pkgs,
  ...
}:
{
  imports = [
    ./all.nix
    (import ./guest.nix).base
  ]
  # what upgrades a host in place of the agents of its flake, where the lab was told to judge something else
  ++ lib.optional (builtins.pathExists ./subject.nix) ./subject.nix;

  config = {
    # what cases call by name
    environment.systemPackages = [
      pkgs.age
      pkgs.chezmoi
      pkgs.curl
      pkgs.git
      pkgs.iproute2
      pkgs.jq
      pkgs.jujutsu
    ];
  }
  # a host may lack some of our agents
  // lib.optionalAttrs (options ? myModules.services) {
    myModules.services =
      lib.optionalAttrs (options ? myModules.services.autoUpgrade) {
        autoUpgrade = {
          # an upgrade comes when a case starts one
          schedule = lib.mkForce "yearly";
          randomizedDelay = lib.mkForce "1s";
        }
        // lib.optionalAttrs (options.myModules.services.autoUpgrade ? resumeDelay) {
          resumeDelay = lib.mkForce "1d";
        };
      }
      // lib.optionalAttrs (options ? myModules.services.chezmoiSync) {
        chezmoiSync = {
          enable = true;
          repoUrl = "git://git.lab/dotfiles.git";
        };
      };
  };
}

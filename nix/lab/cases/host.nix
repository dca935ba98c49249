# Settings that the lab adds to a host while cases break it.
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
  # another upgrader in place of the flake's agents, if the lab was asked to test one
  ++ lib.optional (builtins.pathExists ./subject.nix) ./subject.nix;

  config = {
    # programs that cases call by name
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
  # a host may not have all of our agents
  // lib.optionalAttrs (options ? myModules.services) {
    myModules.services =
      lib.optionalAttrs (options ? myModules.services.autoUpgrade) {
        autoUpgrade = {
          # upgrades run only when a case starts one
          schedule = lib.mkForce "yearly";
          randomizedDelay = lib.mkForce "1s";
        }
        // lib.optionalAttrs (options.myModules.services.autoUpgrade ? resumeDelay) {
          resumeDelay = lib.mkForce "1d";
        };
      }
      // lib.optionalAttrs (options ? myModules.services.chezmoiSync) {
        chezmoiSync = {
          enable = lib.mkForce true;
          # as remotes.nix sets it on a host that names another
          repoUrl = lib.mkOverride 60 "git://git.lab/dotfiles.git";
        };
      };
  };
}

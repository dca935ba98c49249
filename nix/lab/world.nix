# What the lab sets on a host while it breaks it: copied into the remote that the guests upgrade from.
{ lib, ... }:
{
  myModules.services.autoUpgrade = {
    # an upgrade comes when a case starts one
    schedule = lib.mkForce "yearly";
    randomizedDelay = lib.mkForce "1s";
  };
  # addresses are there from the first moment on
  myModules.system.reachability.timeout = lib.mkForce 20;
  myModules.services.chezmoiSync = {
    enable = true;
    repoUrl = "git://git.lab/dotfiles.git";
  };
}

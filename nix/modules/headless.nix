# A host without desktop and display manager carries nothing graphical.
{ config, lib, ... }:
let
  inherit (config.modules.services) desktop display-manager;
  off = lib.mkDefault false;
in
{
  config = lib.mkIf (desktop == [ ] && display-manager == [ ]) {
    # its VPN plugins pull GTK and webkit into a host without screen
    networking.networkmanager.enable = off;
    fonts.fontconfig.enable = off;
    xdg = {
      autostart.enable = off;
      icons.enable = off;
      menus.enable = off;
      mime.enable = off;
      sounds.enable = off;
    };
  };
}

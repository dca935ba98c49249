# Removes everything graphical from a host without desktop and display manager.
{ config, lib, ... }:
let
  inherit (config.modules.services) desktop display-manager;
  off = lib.mkDefault false;
in
{
  config = lib.mkIf (desktop == [ ] && display-manager == [ ]) {
    # its VPN plugins pull in GTK and WebKit
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

# modules.services.networking: each name turns on the NixOS option behind it; a name in a list that
# installs nothing is how a host comes to validate a service it never had.
{ config, lib, ... }:
let
  inherit (config.hostSpec) primaryUsername home;
  on = name: lib.mkIf (lib.elem name config.modules.services.networking);
in
{
  options.modules.services.networking = lib.mkOption {
    type = lib.types.listOf (
      lib.types.enum [
        "openssh"
        "ssh"
        "syncthing"
        "tailscale"
      ]
    );
    default = [ ];
    description = "Network services: `openssh` is the server, `ssh` the client's settings, `syncthing` the primary user's.";
  };

  config = lib.mkMerge [
    (on "openssh" {
      services.openssh = {
        enable = true;
        settings = {
          PasswordAuthentication = false;
          KbdInteractiveAuthentication = false;
          PermitRootLogin = "prohibit-password";
        };
      };
    })
    (on "ssh" {
      # a dead network must end a git fetch or push over SSH, and not hang it
      programs.ssh.extraConfig = ''
        Host *
          ConnectTimeout 10
          ServerAliveInterval 15
          ServerAliveCountMax 3
      '';
    })
    (on "syncthing" {
      services.syncthing = {
        enable = true;
        user = primaryUsername;
        group = "users";
        dataDir = home;
        guiAddress = "127.0.0.1:8384";
      };
    })
    (on "tailscale" {
      services.tailscale.enable = true;
    })
  ];
}

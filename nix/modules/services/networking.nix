# modules.services.networking: each name turns on the NixOS option behind it; if a name installed nothing,
# a host could end up validating a service that it never had.
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
      # on a dead network a git fetch or push over SSH must fail and not hang
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

# Nix in the guest: no sandbox and no build users, because builders are trusted and namespaces cost seconds
# under emulation. The machine that runs the VM is the only binary cache.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  show =
    v:
    if v == true then
      "true"
    else if v == false then
      "false"
    else
      toString v;
  settings = config.nix.settings // {
    experimental-features = lib.unique (
      lib.toList (config.nix.settings.experimental-features or [ ])
      ++ [
        "nix-command"
        "flakes"
      ]
    );
    sandbox = false;
    build-users-group = "";
    # the lab's binary cache on uplink; it starts a process for each connection
    substituters = "http://10.0.3.100?trusted=true";
    http-connections = 4;
    connect-timeout = 5;
    flake-registry = "";
    fsync-metadata = true;
  };
in
{
  environment.etc."nix/nix.conf".text =
    lib.concatLines (lib.mapAttrsToList (key: v: "${key} = ${show v}") settings)
    + config.nix.extraOptions;

  # root accesses the store directly; all other users go through the daemon
  systemd.sockets.nix-daemon = {
    description = "Nix Daemon Socket";
    wantedBy = [ "sockets.target" ];
    socketConfig.ListenStream = "/nix/var/nix/daemon-socket/socket";
  };
  systemd.services.nix-daemon = {
    description = "Nix Daemon";
    requires = [ "nix-daemon.socket" ];
    path = [
      pkgs.nix
      pkgs.util-linux
      pkgs.openssh
    ];
    restartIfChanged = false;
    serviceConfig = {
      ExecStart = "/usr/bin/nix-daemon --daemon";
      KillMode = "process";
      TasksMax = 1048576;
    };
  };
}

# sshd, under its NixOS unit name and with the settings of services.openssh. Each VM gets its host key and
# authorized keys as a systemd credential; sshd starts once they have been written to files.
{ config, lib, ... }:
let
  cfg = config.services.openssh;
  declared = lib.filterAttrs (_: keys: keys != [ ]) (
    lib.mapAttrs (_: u: u.openssh.authorizedKeys.keys) config.users.users
  );
  show =
    v:
    if v == true then
      "yes"
    else if v == false then
      "no"
    else if lib.isList v then
      toString v
    else
      "${toString v}";
  path = import ./path.nix;
  settings = lib.filterAttrs (_: v: v != null) cfg.settings;
in
lib.mkIf cfg.enable {
  environment.etc = {
    "ssh/sshd_config".text = ''
      ${lib.concatStringsSep "\n" (lib.mapAttrsToList (key: v: "${key} ${show v}") settings)}
      ${lib.concatMapStringsSep "\n" (port: "Port ${toString port}") cfg.ports}
      HostKey /etc/ssh/ssh_host_ed25519_key
      AuthorizedKeysFile ${
        toString (
          lib.unique (
            cfg.authorizedKeysFiles
            ++ [
              ".ssh/authorized_keys"
              "/etc/ssh/authorized_keys.d/%u"
              "/etc/ssh/declared_keys.d/%u"
            ]
          )
        )
      }
      PrintMotd no
      PrintLastLog no
      Subsystem sftp /usr/lib/openssh/sftp-server
      # the guest's own settings, before extraConfig because sshd uses the first of two equal settings. PAM
      # would double the cost of a login under emulation, only to set two variables
      UsePAM no
      SetEnv PATH=${path} LANG=C.UTF-8
      ${cfg.extraConfig}
    '';
  }
  // lib.mapAttrs' (
    user: keys: lib.nameValuePair "ssh/declared_keys.d/${user}" { text = lib.concatLines keys; }
  ) declared;

  systemd.services.sshd = {
    description = "SSH Daemon";
    wantedBy = [ "multi-user.target" ];
    # starts as soon as its keys exist: it does not need sockets, timers or udev
    unitConfig.DefaultDependencies = false;
    wants = [ "systemd-tmpfiles-setup.service" ];
    after = [ "systemd-tmpfiles-setup.service" ];
    conflicts = [ "shutdown.target" ];
    before = [ "shutdown.target" ];
    stopIfChanged = false;
    startLimitIntervalSec = 0;
    restartTriggers = [ config.environment.etc."ssh/sshd_config".text ];
    serviceConfig = {
      Type = "notify";
      ExecStart = "/usr/sbin/sshd -D";
      ExecReload = "/bin/kill -HUP $MAINPID";
      KillMode = "process";
      Restart = "always";
    };
  };
}

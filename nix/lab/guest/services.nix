# Services by their NixOS options, run from Debian's packages under the names they have on NixOS.
{ config, lib, ... }:
let
  inherit (lib) mkIf mkMerge;
  syncthing = config.services.syncthing;
in
{
  systemd.services = mkMerge [
    # Debian's own unit, pulled in by udev when the VM has the port
    (mkIf (!config.services.qemuGuest.enable) { qemu-guest-agent.enable = false; })

    (mkIf syncthing.enable {
      syncthing = {
        description = "Syncthing service";
        after = [ "network.target" ];
        wantedBy = [ "multi-user.target" ];
        environment = {
          STNORESTART = "yes";
          STNOUPGRADE = "yes";
        };
        serviceConfig = {
          Restart = "on-failure";
          SuccessExitStatus = "3 4";
          RestartForceExitStatus = "3 4";
          User = syncthing.user;
          Group = syncthing.group;
          ExecStartPre = "+/usr/bin/install -d -o ${syncthing.user} -g ${syncthing.group} -m 700 ${syncthing.dataDir} ${syncthing.configDir}";
          ExecStart = lib.concatStringsSep " " ([
            "/usr/bin/syncthing" "serve" "--no-browser" "--no-default-folder" "--gui-address=${syncthing.guiAddress}"
            "--config=${syncthing.configDir}" "--data=${syncthing.databaseDir}"
          ] ++ syncthing.extraFlags);
          # its first start makes keys, which takes an emulated CPU away from the boot
          CPUWeight = "idle";
        };
      };
    })
  ];

  users = mkIf (syncthing.enable && syncthing.user == "syncthing") {
    users.syncthing = { isSystemUser = true; group = "syncthing"; home = syncthing.dataDir; createHome = true; };
    groups.syncthing = { };
  };
}

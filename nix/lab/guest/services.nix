# Services by their NixOS options, run from Debian's packages under the names they have on NixOS.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkMerge;
  syncthing = config.services.syncthing;
  port = "/dev/virtio-ports/org.qemu.guest_agent.0";
in
{
  systemd.services = mkMerge [
    {
      # wherever the VM has the port, which udev names
      qemu-guest-agent = {
        enable = config.services.qemuGuest.enable;
        description = "QEMU Guest Agent";
        wantedBy = [ "multi-user.target" ];
        after = [ "systemd-udev-trigger.service" ];
        serviceConfig = {
          # udev may be a moment later than the trigger's end
          ExecStartPre = "/usr/bin/udevadm wait --timeout=30 ${port}";
          ExecStart = "/usr/sbin/qemu-ga --path=${port} --statedir=/run/qemu-ga";
          RuntimeDirectory = "qemu-ga";
          Restart = "always";
          RestartSec = 5;
        };
      };

      "serial-getty@ttyS0" = {
        description = "Serial Getty on ttyS0";
        wantedBy = [ "getty.target" ];
        restartIfChanged = false;
        serviceConfig = {
          ExecStart = "/usr/sbin/agetty --keep-baud 115200,57600,38400,9600 --noclear ttyS0 vt220";
          Type = "idle";
          Restart = "always";
          UtmpIdentifier = "ttyS0";
          TTYPath = "/dev/ttyS0";
          TTYReset = true;
          TTYVHangup = true;
          IgnoreSIGPIPE = false;
          SendSIGHUP = true;
        };
      };

      # what logind would do: any event of the button is somebody pressing it
      power-button = {
        description = "Power Off When the Power Button Is Pressed";
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          Type = "simple";
          ExecStart = pkgs.writeShellScript "power-button" ''
            for device in /sys/class/input/event*; do
              read -r name < "$device/device/name"
              [ "$name" != "Power Button" ] || exec 3< "/dev/input/''${device##*/}"
            done
            head --bytes 24 <&3 > /dev/null && systemctl poweroff
          '';
        };
      };

      # nothing waits for it, so that SSH has the CPUs first
      systemd-udevd = { overrideStrategy = "asDropin"; wantedBy = [ "multi-user.target" ]; after = [ "sshd.service" ]; };
      systemd-udev-trigger = { overrideStrategy = "asDropin"; wantedBy = [ "multi-user.target" ]; };
    }

    (mkIf syncthing.enable {
      syncthing = {
        description = "Syncthing service";
        after = [ "network.target" "sshd.service" ];
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

# Services enabled by their NixOS options, run from Debian's packages under their NixOS unit names.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkIf mkMerge;
  syncthing = config.services.syncthing;
  # busybox is statically linked, and under emulation starts ten times as fast as bash
  static =
    name: text:
    "${pkgs.writeScript name ''
      #!/bin/busybox sh
      PATH=/lab/bin:$PATH
      ${text}
    ''}";
in
{
  systemd.services = mkMerge [
    {
      # runs if the VM has the port
      qemu-guest-agent = {
        enable = config.services.qemuGuest.enable;
        description = "QEMU Guest Agent";
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          ExecStart = static "qemu-guest-agent" ''
            for port in /sys/class/virtio-ports/*; do
              read -r name <"$port/name" || continue
              [ "$name" != org.qemu.guest_agent.0 ] ||
                exec /usr/sbin/qemu-ga --path="/dev/''${port##*/}" --statedir=/run/qemu-ga
            done
            echo "The VM has no port for it"
          '';
          RuntimeDirectory = "qemu-ga";
          Restart = "on-failure";
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

      # replaces logind: any event of the button's device means that it was pressed
      power-button = {
        description = "Power Off When the Power Button Is Pressed";
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          Type = "simple";
          ExecStart = static "power-button" ''
            for device in /sys/class/input/event*; do
              read -r name <"$device/device/name"
              [ "$name" != "Power Button" ] || exec 3<"/dev/input/''${device##*/}"
            done
            dd bs=24 count=1 <&3 >/dev/null 2>&1 && systemctl poweroff
          '';
        };
      };
    }

    (mkIf syncthing.enable {
      syncthing = {
        description = "Syncthing service";
        after = [
          "network.target"
          "sshd.service"
        ];
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
          # Without internet, syncthing would look for relays and devices every second
          ExecStartPre = static "syncthing-config" ''
            mkdir -p ${syncthing.configDir} ${syncthing.databaseDir}
            cd ${syncthing.configDir} || exit
            # a power cut leaves files empty that were not yet on the disk, and syncthing would not recreate them
            for file in *.xml *.pem; do [ -s "$file" ] || rm -f "$file"; done
            off="relaysEnabled globalAnnounceEnabled natEnabled crashReportingEnabled"
            if [ -e config.xml ]; then
              for option in $off; do sed -i "s|<$option>true|<$option>false|" config.xml; done
            else
              {
                echo '<configuration version="37"><options>'
                for option in $off; do echo "<$option>false</$option>"; done
                echo '<urAccepted>-1</urAccepted></options></configuration>'
              } >config.xml
            fi
          '';
          ExecStart = lib.concatStringsSep " " (
            [
              "/usr/bin/syncthing"
              "serve"
              "--no-browser"
              "--no-default-folder"
              "--gui-address=${syncthing.guiAddress}"
              "--config=${syncthing.configDir}"
              "--data=${syncthing.databaseDir}"
            ]
            ++ syncthing.extraFlags
          );
          # starting is expensive, most of all when keys are generated the first time: logins come first
          Nice = 19;
        };
      };
    })
  ];

  users = mkIf (syncthing.enable && syncthing.user == "syncthing") {
    users.syncthing = {
      isSystemUser = true;
      group = "syncthing";
      home = syncthing.dataDir;
      createHome = true;
    };
    groups.syncthing = { };
  };
}

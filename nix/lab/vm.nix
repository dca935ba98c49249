# What a NixOS host of any flake needs in order to be a VM of the lab, besides a disk: its identity at
# every boot, three NICs under their names, and sshd with the lab's key. Hosts of this flake have it by
# nix/modules/nixos; others get it as text through `extendModules`, so this file imports nothing.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkForce mkIf;
  nics = [
    "mgmt"
    "uplink"
    "lan"
  ];

  # QEMU's user networks give every guest the same addresses; lan's follows from the MAC
  address = pkgs.writeShellScript "lab-network" ''
    case $1 in
      mgmt) address=10.0.2.15 ;;
      uplink) address=10.0.3.15 ;;
      lan)
        read -r mac </sys/class/net/lan/address
        address=10.0.4.$((0x''${mac##*:}))
        ;;
    esac
    ${pkgs.iproute2}/bin/ip address replace "$address/24" dev "$1"
    ${pkgs.iproute2}/bin/ip link set "$1" up
    # an uplink that --open-uplink opened is the way to the world
    if [ "$1" = uplink ] && [ -e /sys/firmware/qemu_fw_cfg/by_name/opt/lab/open-uplink ]; then
      ${pkgs.iproute2}/bin/ip route replace default via 10.0.3.2 dev uplink
    fi
  '';
in
{
  options.lab.vm = lib.mkOption {
    type = lib.types.bool;
    default = true;
    internal = true;
    description = "Whether this host runs as a VM of the lab; on any other machine it changes nothing.";
  };

  config = mkIf config.lab.vm (
    {
      boot.initrd.availableKernelModules = [
        "virtio_pci"
        "virtio_blk"
        # by which systemd reads the VM's identity
        "qemu_fw_cfg"
      ];

      # NixOS makes homes before it mounts a /home of its own, and nixos-install, which would have made them
      # on it, never ran here. `:` leaves one that is there as it is.
      systemd.tmpfiles.settings.lab-homes = lib.mapAttrs' (
        _: user:
        lib.nameValuePair user.home {
          d = {
            mode = ":${user.homeMode}";
            user = ":${user.name}";
            group = ":${user.group}";
          };
        }
      ) (lib.filterAttrs (_: user: user.isNormalUser && user.createHome) config.users.users);

      # systemd does the same later in the boot; secrets are decrypted before that, with the key in here
      system.activationScripts."00-lab-identity" = {
        deps = [ "specialfs" ];
        text = ''
          for credential in /run/credentials/@system/tmpfiles.extra \
            /sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/tmpfiles.extra/raw; do
            [ -e "$credential" ] || continue
            ${config.systemd.package}/bin/systemd-tmpfiles --create "$credential" || true
            break
          done
        '';
      };

      services.openssh = {
        enable = mkForce true;
        # the lab's key in a file of its own: NixOS writes authorized_keys.d anew at every switch
        authorizedKeysFiles = [ "/etc/ssh/lab_keys.d/%u" ];
        hostKeys = mkForce [
          {
            type = "ed25519";
            path = "/etc/ssh/ssh_host_ed25519_key";
          }
        ];
        settings.PermitRootLogin = mkForce "prohibit-password";
      };
      networking.firewall.interfaces.mgmt.allowedTCPPorts = [ 22 ];

      # By rules and not by .link files, which know no patterns of a MAC. While the NIC is renamed systemd does not
      # see it, and what the `move` event after that does not say again is lost: so each event but the last says
      # what is wanted. They come before NixOS's own rule for IPv6's temporary addresses (98-), which writes to
      # the name that it finds; extraRules come after it (99-).
      services.udev.packages = [
        (pkgs.writeTextDir "lib/udev/rules.d/70-lab-network.rules" (
          lib.concatStrings (
            lib.imap1 (number: nic: ''
              ACTION!="remove", SUBSYSTEM=="net", ATTR{address}=="52:54:00:0${toString number}:*", NAME="${nic}", ENV{SYSTEMD_WANTS}+="lab-network@${nic}.service"
            '') nics
          )
        ))
      ];
      systemd.services."lab-network@" = {
        description = "Address of the lab's NIC %i";
        bindsTo = [ "sys-subsystem-net-devices-%i.device" ];
        after = [ "sys-subsystem-net-devices-%i.device" ];
        before = [ "network-online.target" ];
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${address} %i";
        };
      };
      # with the key of LAB_TAILSCALE_AUTHKEY, which the VM's identity brings where its uplink is open
      systemd.services.lab-tailscale-login = mkIf config.services.tailscale.enable {
        description = "Login to tailscale with the lab's key";
        after = [ "tailscaled.service" ];
        wants = [ "tailscaled.service" ];
        wantedBy = [ "multi-user.target" ];
        unitConfig.ConditionPathExists = "/run/lab/tailscale-authkey";
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          # by the name of its file, as a command line is there for all to read
          ExecStart = "${config.services.tailscale.package}/bin/tailscale up --auth-key=file:/run/lab/tailscale-authkey --timeout=60s";
        };
      };
      systemd.targets.network-online.wants = [ "lab-network@uplink.service" ];

      # no other cache is in reach than that of the machine that the VM runs on, on uplink; it has what was built
      # there, and signs nothing
      nix.settings = {
        substituters = mkForce [ "http://10.0.3.100?trusted=true" ];
        http-connections = mkForce 4;
        connect-timeout = mkForce 5;
      };

      # whatever else gives addresses on this host leaves these three alone
      networking.dhcpcd.denyInterfaces = nics;
      # which leaves it none to wait for, half a minute at each boot
      networking.dhcpcd.wait = mkForce "background";
      networking.networkmanager.unmanaged = map (nic: "interface-name:${nic}") nics;
      systemd.network.networks."00-lab" = {
        matchConfig.Name = toString nics;
        linkConfig.Unmanaged = true;
      };
      # there is no other link that could come online
      systemd.network.wait-online.enable = mkForce false;
      systemd.services.NetworkManager-wait-online.enable = mkForce false;

      # the uplink's name server speaks TCP alone, which systemd-resolved asks for in no setting
      networking.nameservers = mkIf (!config.services.resolved.enable) [ "10.0.3.53" ];
      networking.resolvconf.extraOptions = [
        "use-vc"
        "timeout:5"
        "attempts:1"
      ];
      networking.hosts = mkIf config.services.resolved.enable { "10.0.3.100" = [ "git.lab" ]; };
      # nor is a proxy in reach
      networking.proxy.envVars = mkForce { };
    }
    # the way in, for a host that has our agents
    // lib.optionalAttrs (options ? myModules.system.reachability) {
      myModules.system.reachability.interfaces = mkForce [ "mgmt" ];
    }
  );
}

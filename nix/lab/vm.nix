# What a NixOS host of any flake needs in order to be a VM of the lab, besides a disk: its identity at
# every boot, three named NICs, and sshd with the lab's key. Hosts of this flake get it from
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
    # if --open-uplink opened the uplink, it is the default route
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
    description = "Whether this host runs as a VM of the lab; when false, this module changes nothing.";
  };

  config = mkIf config.lab.vm (
    {
      boot.initrd.availableKernelModules = [
        "virtio_pci"
        "virtio_blk"
        # through which systemd reads the VM's identity
        "qemu_fw_cfg"
      ];

      # NixOS creates home directories before a separate /home is mounted, and nixos-install, which would have
      # created them there, never ran here. `:` leaves an existing home unchanged.
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

      # systemd does the same later in the boot, but secrets are decrypted before that, with the key from here
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
        # the lab's key is in a separate file, because NixOS rewrites authorized_keys.d at every switch
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

      # By udev rules, because .link files cannot match MAC patterns. systemd does not see a NIC while it is
      # renamed, and forgets settings that the following `move` event does not repeat, so every event except
      # `remove` sets them. The rules sort before NixOS's rule for IPv6 temporary addresses (98-), which writes
      # to the interface name that it finds; extraRules would sort after it (99-).
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
      # uses the key of LAB_TAILSCALE_AUTHKEY, which the VM's identity contains if its uplink is open
      systemd.services.lab-tailscale-login = mkIf config.services.tailscale.enable {
        description = "Login to tailscale with the lab's key";
        after = [ "tailscaled.service" ];
        wants = [ "tailscaled.service" ];
        wantedBy = [ "multi-user.target" ];
        unitConfig.ConditionPathExists = "/run/lab/tailscale-authkey";
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          # passed by file name, because every user can read a command line
          ExecStart = "${config.services.tailscale.package}/bin/tailscale up --auth-key=file:/run/lab/tailscale-authkey --timeout=60s";
        };
      };
      systemd.targets.network-online.wants = [ "lab-network@uplink.service" ];

      # the only reachable cache is that of the machine that runs the VM, on uplink; it serves what was built there,
      # unsigned
      nix.settings = {
        substituters = mkForce [ "http://10.0.3.100?trusted=true" ];
        http-connections = mkForce 4;
        connect-timeout = mkForce 5;
      };

      # keep the host's other network services away from these three NICs
      networking.dhcpcd.denyInterfaces = nics;
      # dhcpcd then has no interface left, and would wait half a minute for one at each boot
      networking.dhcpcd.wait = mkForce "background";
      networking.networkmanager.unmanaged = map (nic: "interface-name:${nic}") nics;
      systemd.network.networks."00-lab" = {
        matchConfig.Name = toString nics;
        linkConfig.Unmanaged = true;
      };
      # no other link could come online
      systemd.network.wait-online.enable = mkForce false;
      systemd.services.NetworkManager-wait-online.enable = mkForce false;

      # the uplink's name server speaks only TCP, which systemd-resolved cannot be configured to use
      networking.nameservers = mkIf (!config.services.resolved.enable) [ "10.0.3.53" ];
      networking.resolvconf.extraOptions = [
        "use-vc"
        "timeout:5"
        "attempts:1"
      ];
      networking.hosts = mkIf config.services.resolved.enable { "10.0.3.100" = [ "git.lab" ]; };
      # no proxy is reachable either
      networking.proxy.envVars = mkForce { };
    }
    # the lab logs in over mgmt; only for a host that has our agents
    // lib.optionalAttrs (options ? myModules.system.reachability) {
      myModules.system.reachability.interfaces = mkForce [ "mgmt" ];
    }
  );
}

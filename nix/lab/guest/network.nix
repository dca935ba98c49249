# Three NICs: mgmt, uplink and lan. `init` names them and gives mgmt and lan their addresses.
{ config, lib, ... }:
let
  network = name: text: lib.nameValuePair "systemd/network/${name}.network" { inherit text; };
  hosts = [ [ "127.0.0.1" "localhost" ] [ "::1" "localhost" ] ]
    ++ lib.optional (config.networking.hostName != "") [ "127.0.0.2" config.networking.hostName ]
    ++ lib.mapAttrsToList (address: names: [ address ] ++ names) config.networking.hosts;
in
{
  environment.etc = lib.listToAttrs [
    # the way in: the address that QEMU forwards to, and never a route out
    (network "10-mgmt" ''
      [Match]
      Name=mgmt
      [Network]
      Address=10.0.2.15/24
      LinkLocalAddressing=no
    '')
    (network "10-uplink" ''
      [Match]
      Name=uplink
      [Network]
      DHCP=ipv4
      LinkLocalAddressing=no
    '')
  ] // {
    hostname.text = "${config.networking.hostName}\n";
    hosts.text = lib.concatLines (map toString hosts) + config.networking.extraHosts;
    "resolv.conf".text = ''
      nameserver 10.0.3.3
      options timeout:2 attempts:1
    '';
  };

  systemd.services = {
    systemd-networkd = {
      overrideStrategy = "asDropin";
      wantedBy = [ "multi-user.target" ];
      # SSH needs neither it nor dbus, which it starts
      after = [ "sshd.service" ];
      restartIfChanged = false;
    };
    # only for units that ask for network-online.target; a dead uplink must not hold them for long
    systemd-networkd-wait-online = {
      overrideStrategy = "asDropin";
      wantedBy = [ "network-online.target" ];
      serviceConfig.ExecStart = [
        ""
        "/usr/lib/systemd/systemd-networkd-wait-online --interface=uplink --timeout=30"
      ];
    };
  };
}

# Three NICs, told apart by their MAC addresses: mgmt, uplink and lan. `init` gives lan its address,
# which follows from the MAC as well.
{ config, lib, ... }:
let
  network = name: text: lib.nameValuePair "systemd/network/${name}.network" { inherit text; };
  hosts = [ [ "127.0.0.1" "localhost" ] [ "::1" "localhost" ] ]
    ++ lib.optional (config.networking.hostName != "") [ "127.0.0.2" config.networking.hostName ]
    ++ lib.mapAttrsToList (address: names: [ address ] ++ names) config.networking.hosts;
in
{
  environment.etc = lib.listToAttrs [
    # the way in: never a route out
    (network "10-mgmt" ''
      [Match]
      Name=mgmt
      [Network]
      DHCP=ipv4
      LinkLocalAddressing=no
      [DHCPv4]
      UseDNS=no
      UseRoutes=no
      UseGateway=no
    '')
    (network "10-uplink" ''
      [Match]
      Name=uplink
      [Network]
      DHCP=ipv4
      LinkLocalAddressing=no
    '')
  ] // {
    "udev/rules.d/70-lab-nics.rules".text = ''
      SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="52:54:00:01:*", NAME="mgmt"
      SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="52:54:00:02:*", NAME="uplink"
      SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="52:54:00:03:*", NAME="lan"
    '';
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

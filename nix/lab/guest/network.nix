# Three NICs: mgmt, uplink and lan. `init` names them and sets their addresses, which are known
# beforehand: QEMU's user network gives every guest the same ones, and lan's follows from the MAC. So
# neither a DHCP client nor udev is needed: under emulation the two take a third of a boot.
{
  config,
  lib,
  options,
  ...
}:
let
  hosts = [
    [
      "127.0.0.1"
      "localhost"
    ]
    [
      "::1"
      "localhost"
    ]
  ]
  ++ lib.optional (config.networking.hostName != "") [
    "127.0.0.2"
    config.networking.hostName
  ]
  ++ lib.mapAttrsToList (address: names: [ address ] ++ names) config.networking.hosts;
in
{
  config = {
    environment.etc = {
      hostname.text = "${config.networking.hostName}\n";
      hosts.text = lib.concatLines (map toString hosts) + config.networking.extraHosts;
      # the uplink's name server speaks only TCP
      "resolv.conf".text = ''
        nameserver 10.0.3.53
        options use-vc timeout:5 attempts:1
      '';
    };
  }
  # the lab logs in over mgmt; only for a host that has our agents
  // lib.optionalAttrs (options ? myModules.system.reachability) {
    myModules.system.reachability.interfaces = lib.mkForce [ "mgmt" ];
  };
}

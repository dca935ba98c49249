# Closes ports on `mgmt`, the NIC that the lab logs in over
{ lib, pkgs, ... }:
let
  closed = [ 23 ];
  drop =
    port:
    "tc filter add dev mgmt ingress protocol ip u32 match ip protocol 6 0xff match ip dport ${toString port} 0xffff action drop\n";
in
{
  systemd.services.closed-ports = {
    wantedBy = [ "multi-user.target" ];
    before = [ "golden-boot-validation.service" ];
    path = [ pkgs.iproute2 ];
    serviceConfig.Type = "oneshot";
    serviceConfig.RemainAfterExit = true;
    script = "tc qdisc add dev mgmt clsact\n" + lib.concatMapStrings drop closed;
    preStop = "tc qdisc del dev mgmt clsact";
  };
}

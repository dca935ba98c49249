# myModules.system.reachability: when a host counts as reachable, which validates a boot and an upgrade.
# Checked by ../agents/reachability.sh, a part of both agents.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.myModules.system.reachability;
  ssh = config.services.openssh;
  firewall = config.networking.firewall or { };

  open =
    rules:
    lib.elem cfg.port (rules.allowedTCPPorts or [ ])
    || lib.any (range: range.from <= cfg.port && cfg.port <= range.to) (
      rules.allowedTCPPortRanges or [ ]
    );
  # the interfaces on which the firewall lets SSH in, if it does so only on some, such as a VPN's
  through =
    lib.filter (name: name != "lo") (firewall.trustedInterfaces or [ ])
    ++ lib.attrNames (lib.filterAttrs (_: open) (firewall.interfaces or { }));
in
{
  options.myModules.system.reachability = {
    enable = mkOption {
      type = types.bool;
      default = ssh.enable or false;
      defaultText = lib.literalExpression "config.services.openssh.enable";
      description = ''
        Whether a boot or an upgrade counts as good only if a login would be possible: sshd answers at an
        address of the host, to packets that come in on that address's interface and pass the firewall. Turn it
        off for a machine that must also boot without a network, such as a laptop.
      '';
    };
    port = mkOption {
      type = types.port;
      default = if ssh.ports or [ ] == [ ] then 22 else lib.head ssh.ports;
      defaultText = lib.literalExpression "lib.head config.services.openssh.ports";
      description = "Port of sshd.";
    };
    interfaces = mkOption {
      type = types.listOf types.nonEmptyStr;
      default = if !(firewall.enable or false) || open firewall then [ ] else through;
      defaultText = lib.literalMD "the interfaces on which the firewall lets SSH in, if it does so only on some";
      example = [ "tailscale0" ];
      description = "Interfaces, one of which must have an address at which sshd answers; an empty list means those of network cards and of the default route.";
    };
    timeout = mkOption {
      type = types.ints.positive;
      default = 60;
      description = "Seconds to wait for an address, for example from DHCP, and for sshd to answer at it.";
    };
    command = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "tailscale status --peers=false";
      description = "Shell command to run instead, for a host that is reached in another way; it must succeed when the host can be reached.";
    };
    environment = mkOption {
      type = types.attrsOf types.str;
      internal = true;
      readOnly = true;
      description = "The settings of ../agents/reachability.sh.";
    };
  };

  config = {
    myModules.system.reachability.environment = {
      REACH_PORT = lib.optionalString cfg.enable (toString cfg.port);
      REACH_INTERFACES = toString cfg.interfaces;
      REACH_TIMEOUT = toString cfg.timeout;
      REACH_COMMAND = lib.optionalString (cfg.enable && cfg.command != null) cfg.command;
    };
    # the check loads these modules on demand, which a host with locked modules refuses after its boot
    boot.kernelModules = lib.mkIf (cfg.enable && config.security.lockKernelModules or false) [
      "veth"
      "sch_ingress"
      "cls_u32"
      "act_mirred"
    ];
  }
  # the check's veth interface, which exists for a second; only NixOS has this option
  // lib.optionalAttrs (options ? networking.dhcpcd.denyInterfaces) {
    networking.dhcpcd.denyInterfaces = [ "reach-in" ];
  };
}

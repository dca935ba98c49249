# myModules.system.reachability: what it means that a host can be reached, which a boot and an upgrade are
# validated by. Asked by ../agents/reachability.sh, a part of both agents.
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
  # where the firewall lets SSH in on some interfaces alone, as a VPN's
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
        Whether a boot and an upgrade are good only if somebody could log in: sshd answers at an address of the
        host, to packets that come in on that address's interface and pass the firewall. Turn it off for a
        machine that has to boot with no network as well, such as a laptop.
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
      defaultText = lib.literalMD "those that the firewall lets SSH in on, where it does so on some alone";
      example = [ "tailscale0" ];
      description = "Interfaces, one of which must have an address at which the host is reached; without any, those of network cards and of the default route.";
    };
    timeout = mkOption {
      type = types.ints.positive;
      default = 60;
      description = "Seconds for an address to come, as from DHCP, and for sshd to answer at it.";
    };
    command = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "tailscale status --peers=false";
      description = "Shell command to ask instead, for a host that is reached in another way; it succeeds when the host can be reached.";
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
    # what it asks by is loaded as it is needed, which such a host refuses after its boot
    boot.kernelModules = lib.mkIf (cfg.enable && config.security.lockKernelModules or false) [
      "veth"
      "sch_ingress"
      "cls_u32"
      "act_mirred"
    ];
  }
  # the end of a cable that is there for a second; the option is NixOS's alone
  // lib.optionalAttrs (options ? networking.dhcpcd.denyInterfaces) {
    networking.dhcpcd.denyInterfaces = [ "reach-in" ];
  };
}

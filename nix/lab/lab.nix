# Lab only: the toplevel, and the list of what this guest cannot provide.
{
  config,
  lib,
  options,
  pkgs,
  openNames,
  ...
}:
let
  # NixOS's own top-level option names, and those of the inputs that only the NixOS side imports
  nixos = [
    "appstream"
    "boot"
    "console"
    "containers"
    "documentation"
    "environment"
    "fileSystems"
    "fonts"
    "gtk"
    "hardware"
    "i18n"
    "ids"
    "image"
    "location"
    "meta"
    "networking"
    "nix"
    "nixpkgs"
    "power"
    "powerManagement"
    "programs"
    "qt"
    "security"
    "services"
    "specialisation"
    "swapDevices"
    "system"
    "systemd"
    "time"
    "users"
    "virtualisation"
    "xdg"
    "zramSwap"
    "disko"
    "home-manager"
    "sops"
  ];
  failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
  checked =
    value:
    if failed != [ ] then
      throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (m: "- ${m}") failed}"
    else
      lib.foldr lib.warn value config.warnings;

  # Options that the lab accepts but ignores. Without this report a `services.nginx.enable` would silently
  # declare a service that does not exist in the guest.
  isOn =
    v:
    let
      r = builtins.tryEval (v.enable or false);
    in
    r.success && r.value == true;
  unknown =
    top:
    lib.concatLists (
      lib.mapAttrsToList (
        name: v:
        lib.optional (!(options ? ${top}.${name}) && isOn v) {
          service = name;
          unit = null;
          reason = "the lab does not know `${top}.${name}`";
        }
      ) config.${top}
    );

  # Services and programs that the host enables but Debian or this image lacks: { service; unit; reason; }
  lacking =
    lib.optional config.services.tailscale.enable {
      service = "tailscale";
      unit = "tailscaled.service";
      reason = pkgs.tailscale.meta.unavailable;
    }
    ++ lib.optional (config.hostSpec.secretCategories or [ ] != [ ]) {
      service = "sops";
      unit = "sops-install-secrets.service";
      reason = pkgs.sops.meta.unavailable;
    }
    ++
      map
        (name: {
          service = name;
          unit = "graphical.target";
          reason = "the guest has no display";
        })
        (
          (config.modules.services.desktop or [ ])
          ++ (config.modules.services.display-manager or [ ])
          ++ lib.optional config.services.spice-vdagentd.enable "spice-vdagentd"
        )
    ++ map (p: {
      service = p.pname;
      unit = null;
      reason = p.meta.unavailable;
    }) (lib.filter (p: p ? meta.unavailable) config.environment.systemPackages)
    ++ lib.concatMap unknown (
      lib.filter (top: config ? ${top}) [
        "hardware"
        "programs"
        "services"
        "virtualisation"
      ]
    );
in
{
  # A NixOS option that the lab does not declare is accepted without checks. Any other option has to be
  # declared, so that a misspelt name is an error as on NixOS.
  freeformType = lib.types.shapeBelow (nixos ++ openNames);

  options.lab.unavailable = lib.mkOption {
    type = lib.types.attrsOf lib.types.str;
    default = { };
    example = {
      tailscale = "Debian carries no tailscale";
    };
    description = "What the host declares but this guest cannot provide, with the reason; reported as n/a.";
  };

  options.lab.unavailableUnits = lib.mkOption {
    type = lib.types.attrsOf lib.types.str;
    default = { };
    description = "The same by unit, so that a check of such a unit is skipped and reported as skipped.";
  };

  config.lab = {
    unavailable = lib.listToAttrs (map (l: lib.nameValuePair l.service l.reason) lacking);
    unavailableUnits = lib.listToAttrs (
      map (l: lib.nameValuePair l.unit l.reason) (lib.filter (l: l.unit != null) lacking)
    );
  };
  config.system.build.toplevel = checked (import ./toplevel.nix { inherit lib pkgs config; });
}

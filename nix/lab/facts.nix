# What the tasks ask of a host, read from its `.config` in one evaluation: `nix eval --apply` takes this
# text as it stands, so it imports nothing. Works on labConfigurations and nixosConfigurations, of this
# flake and of one that has never heard of the lab: every path has a fallback.
#
# names: { user; units; flake; } of lab.toml, where `user` may be null and `flake` begin with ~/
names: host:
let
  inherit (host) config;
  services = config.services or { };
  lists = config.modules.services or { };
  upgrade = config.myModules.services.autoUpgrade or { };
  golden = config.myModules.system.boot.goldenGeneration or { };
  sync = config.myModules.services.chezmoiSync or { };
  # normal users, as NixOS sorts them
  normal = builtins.filter (name: config.users.users.${name}.isNormalUser or false) (
    builtins.attrNames (config.users.users or { })
  );
  enabled = name: services.${name}.enable or false;
  byOption = builtins.filter enabled [
    "openssh"
    "syncthing"
    "tailscale"
  ];
  unique = builtins.foldl' (
    seen: name: if builtins.elem name seen then seen else seen ++ [ name ]
  ) [ ];
in
rec {
  hostName = config.networking.hostName;
  stateVersion = config.system.stateVersion or null;
  primaryUser =
    if names.user != null then
      names.user
    else
      config.hostSpec.primaryUsername or (if normal == [ ] then "root" else builtins.head normal);
  # what a host is upgraded and watched by: its own units, under whatever names they have
  agents = builtins.mapAttrs (_: unit: {
    inherit unit;
    present = config.systemd.services ? ${unit};
    timer = config.systemd.timers ? ${unit};
  }) names.units;
  home = config.users.users.${primaryUser}.home or "/home/${primaryUser}";
  # what the host itself says of where it is upgraded from; null where it has not our agents
  clones = {
    branch = if upgrade.enable or false then upgrade.branch or null else null;
    # in mode `remote` there is none
    flake =
      if upgrade.enable or false && upgrade.mode or "local" == "local" then
        # an agent of the same options that is not ours may have it fixed in its script
        upgrade.repository or (builtins.replaceStrings [ "~/" ] [ "${home}/" ] names.flake)
      else
        null;
    dotfilesBranch = if sync.enable or false then sync.branch or null else null;
  };
  # what `nixosSystem { system = …; }` says stands in its packages alone; to ask the option then is an error
  platform = host.pkgs.stdenv.hostPlatform.system or (config.nixpkgs.hostPlatform.system or null);
  desktop = lists.desktop or [ ];
  cli = lists.cli or [ ];
  networking = lists.networking or [ ];
  autoUpgradeEnable = upgrade.enable or false;
  systemAutoUpgrade = config.system.autoUpgrade.enable or false;
  comin = enabled "comin";
  goldenEnable = golden.enable or false;
  schedule = upgrade.schedule or "";
  validateServices = golden.validateServices or [ ];
  # what a list names and what an option turns on; the two differ in a host that lies about itself
  declared = unique (cli ++ networking ++ byOption);
  units = builtins.listToAttrs (
    map
      (name: {
        inherit name;
        value =
          {
            openssh = "sshd.service";
            syncthing = "syncthing.service";
            tailscale = "tailscaled.service";
          }
          .${name};
      })
      (
        builtins.filter (
          name:
          builtins.elem name [
            "openssh"
            "syncthing"
            "tailscale"
          ]
        ) declared
      )
  );
  unavailable = config.lab.unavailable or { };
  # where sops-nix puts what, and for whom
  secrets = map (secret: { inherit (secret) path owner mode; }) (
    builtins.filter (secret: secret.owner or null != null) (
      builtins.attrValues (config.sops.secrets or { })
    )
  );
  syncthingAddress = services.syncthing.guiAddress or "127.0.0.1:8384";
}

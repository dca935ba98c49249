# What the tasks need to know about a host, read from its `.config` in one evaluation. Passed as text to
# `nix eval --apply`, so it imports nothing. Works on labConfigurations and nixosConfigurations, of this
# flake and of flakes that do not know the lab: every path has a fallback.
#
# names: { user; units; flake; } of lab.toml; `user` may be null, `flake` may begin with ~/
names: host:
let
  inherit (host) config;
  services = config.services or { };
  lists = config.modules.services or { };
  upgrade = config.myModules.services.autoUpgrade or { };
  golden = config.myModules.system.boot.goldenGeneration or { };
  sync = config.myModules.services.chezmoiSync or { };
  # normal users, in NixOS's order
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
  # the units that upgrade and watch the host, under the names that lab.toml gives
  agents = builtins.mapAttrs (_: unit: {
    inherit unit;
    present = config.systemd.services ? ${unit};
    timer = config.systemd.timers ? ${unit};
  }) names.units;
  home = config.users.users.${primaryUser}.home or "/home/${primaryUser}";
  # where the host says that it is upgraded from; null if it does not have our agents
  clones = {
    branch = if upgrade.enable or false then upgrade.branch or null else null;
    # mode `remote` has no clone
    flake =
      if upgrade.enable or false && upgrade.mode or "local" == "local" then
        # another agent with the same options may have the path hard-coded in its script
        upgrade.repository or (builtins.replaceStrings [ "~/" ] [ "${home}/" ] names.flake)
      else
        null;
    dotfilesBranch = if sync.enable or false then sync.branch or null else null;
  };
  # `nixosSystem { system = …; }` records the system in its packages only; reading the option then is an error
  platform = host.pkgs.stdenv.hostPlatform.system or (config.nixpkgs.hostPlatform.system or null);
  desktop = lists.desktop or [ ];
  cli = lists.cli or [ ];
  networking = lists.networking or [ ];
  autoUpgradeEnable = upgrade.enable or false;
  systemAutoUpgrade = config.system.autoUpgrade.enable or false;
  comin = enabled "comin";
  goldenEnable = golden.enable or false && golden.autoPinAfterBoot or true;
  # cases turn on the lab's own sync where a host has it
  syncs = agents.sync.present or false || (host.options.myModules.services or { }) ? chezmoiSync;
  rollsBack = upgrade.onValidationFailure or "rollback" == "rollback";
  buildsFirst = upgrade.buildBeforeSwitch or true;
  schedule = upgrade.schedule or "";
  validateServices = golden.validateServices or [ ];
  # services named by a list or turned on by an option; on an inconsistent host the two differ
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
  # the path, owner and mode of each sops-nix secret
  secrets = map (secret: { inherit (secret) path owner mode; }) (
    builtins.filter (secret: secret.owner or null != null) (
      builtins.attrValues (config.sops.secrets or { })
    )
  );
  syncthingAddress = services.syncthing.guiAddress or "127.0.0.1:8384";
}

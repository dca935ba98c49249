# system.autoUpgrade, with NixOS's options, defaults and unit (nixos/modules/tasks/auto-upgrade.nix). Like the
# original it neither validates nor rolls back. Differences: the guest has no channels, and it reboots by a
# systemd timer, because `shutdown` needs logind, which the guest does not run.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.system.autoUpgrade;
  opt = type: default: mkOption { inherit type default; };
  time = mkOption { type = types.strMatching "[[:digit:]]{2}:[[:digit:]]{2}"; };

  rebuild =
    operation: flags: "/run/current-system/sw/bin/nixos-rebuild ${operation} ${toString flags}";
  flags = cfg.flags ++ lib.optional (cfg.channel == null && cfg.upgrade) "--upgrade";
  window = cfg.rebootWindow;
in
{
  options.system.autoUpgrade = {
    enable = opt types.bool false;
    operation = opt (types.enum [
      "switch"
      "boot"
    ]) "switch";
    flake = opt (types.nullOr types.str) null;
    channel = opt (types.nullOr types.str) null;
    upgrade = opt types.bool true;
    flags = opt (types.listOf types.str) [ ];
    dates = opt types.str "04:40";
    allowReboot = opt types.bool false;
    rebootWindow = opt (types.nullOr (types.submodule {
      options.lower = time;
      options.upper = time;
    })) null;
    randomizedDelaySec = opt types.str "0";
    fixedRandomDelay = opt types.bool false;
    persistent = opt types.bool true;
    runGarbageCollection = opt types.bool false;
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.channel == null || cfg.flake == null;
        message = "The options 'system.autoUpgrade.channel' and 'system.autoUpgrade.flake' cannot both be set.";
      }
    ];

    system.autoUpgrade.flags =
      if cfg.flake == null then
        [ "--no-build-output" ]
      else
        [
          "--refresh"
          "--flake ${cfg.flake}"
        ];

    systemd.services.nixos-upgrade = {
      description = "NixOS Upgrade";
      restartIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      serviceConfig.Type = "oneshot";
      environment.HOME = "/root";
      path = [ "/run/current-system/sw" ];
      startAt = cfg.dates;
      after = [ "network-online.target" ];
      wants = [ "network-online.target" ];
      script =
        if cfg.allowReboot then
          ''
            ${rebuild "boot" flags}
            booted="$(readlink /run/booted-system/{initrd,kernel})"
            built="$(readlink /nix/var/nix/profiles/system/{initrd,kernel})"
            do_reboot=true
            ${lib.optionalString (window != null) ''
              current_time="$(date +%H:%M)"
              if [[ "${window.lower}" < "${window.upper}" ]]; then
                [[ "$current_time" > "${window.lower}" && "$current_time" < "${window.upper}" ]] || do_reboot=false
              else
                [[ "$current_time" < "${window.upper}" || "$current_time" > "${window.lower}" ]] || do_reboot=false
              fi
            ''}
            if [ "$booted" = "$built" ]; then
              ${rebuild cfg.operation cfg.flags}
            elif [ "$do_reboot" != true ]; then
              echo "Outside of configured reboot window, skipping."
            else
              systemd-run --quiet --collect --on-active=1min systemctl reboot
            fi
          ''
        else
          rebuild cfg.operation flags;
    };

    systemd.timers.nixos-upgrade.timerConfig = {
      RandomizedDelaySec = cfg.randomizedDelaySec;
      FixedRandomDelay = cfg.fixedRandomDelay;
      Persistent = cfg.persistent;
    };
  };
}

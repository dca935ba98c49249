# The rest of what a host may ask of its system: sudo, sysctl, modules, tmpfiles, locale, systemd itself.
{ config, lib, ... }:
let
  inherit (lib) concatLines filterAttrs mapAttrsToList optionalString;
  showSysctl = v: if v == true then "1" else if v == false then "0" else toString v;
  path = "/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
  manager = lib.mergeAttrs { RuntimeWatchdogSec = "30s"; RebootWatchdogSec = "2min"; } config.systemd.settings.Manager;
  show = v: if v == true then "yes" else if v == false then "no" else toString v;
  variables = config.environment.variables // config.environment.sessionVariables;
  variable = name: v: "export ${name}=${lib.escapeShellArg (if lib.isList v then lib.concatStringsSep ":" v else v)}";
in
{
  lab.guest.kernelParams = [
    # as on NixOS; a serial line is slow to write to under emulation
    "loglevel=4"
    # a machine that nobody looks at comes back by itself
    "panic=5" "oops=panic"
    # the command line names no root=, or a garbage initrd would leave the kernel waiting for it
    "rw"
  ];

  environment.etc = {
    sudoers = {
      mode = "0440";
      text = ''
        Defaults secure_path=${path}
        root ALL=(ALL:ALL) SETENV: ALL
        %wheel ALL=(ALL:ALL) ${optionalString (!config.security.sudo.wheelNeedsPassword) "NOPASSWD:"}SETENV: ALL
        ${config.security.sudo.extraConfig}
      '';
    };
    "sysctl.d/60-nixos.conf".text = concatLines (mapAttrsToList (key: v: "${key} = ${showSysctl v}")
      (filterAttrs (_: v: v != null) config.boot.kernel.sysctl));
    "modules-load.d/nixos.conf".text = concatLines config.boot.kernelModules;
    "modprobe.d/nixos.conf".text = concatLines (map (m: "blacklist ${m}") config.boot.blacklistedKernelModules);
    "tmpfiles.d/00-nixos.conf".text = concatLines config.systemd.tmpfiles.rules;
    "locale.conf".text = "LANG=C.UTF-8\n";
    "profile.d/variables.sh".text = concatLines (mapAttrsToList variable variables
      ++ mapAttrsToList (name: v: "alias ${name}=${lib.escapeShellArg v}")
        (filterAttrs (_: v: v != null) config.environment.shellAliases));
    "systemd/system.conf".text = "[Manager]\n" + concatLines (mapAttrsToList (key: v: "${key}=${show v}") manager);
    "systemd/journald.conf".text = "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n";
  };
}

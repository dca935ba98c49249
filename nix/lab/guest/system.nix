# The rest of what a host may ask of its system: sudo, sysctl, modules, tmpfiles, locale, systemd itself.
{ config, lib, ... }:
let
  inherit (lib)
    concatLines
    filterAttrs
    mapAttrsToList
    optional
    optionalString
    ;
  sysctl = filterAttrs (_: v: v != null) config.boot.kernel.sysctl;
  showSysctl =
    v:
    if v == true then
      "1"
    else if v == false then
      "0"
    else
      toString v;
  path = import ./path.nix;
  # with a golden generation, what ends a boot that goes nowhere is its own affair
  golden = config.myModules.system.boot.goldenGeneration.enable or false;
  manager =
    lib.optionalAttrs (!golden) {
      RuntimeWatchdogSec = "30s";
      RebootWatchdogSec = "2min";
    }
    // config.systemd.settings.Manager;
  # Debian's cloud kernel has no display driver, and asking for one takes a second of the boot
  modules = lib.subtractLists [
    "virtio-gpu"
    "virtio_gpu"
    "bochs"
    "bochs_drm"
    "bochs-drm"
    "qxl"
  ] config.boot.kernelModules;
  show =
    v:
    if v == true then
      "yes"
    else if v == false then
      "no"
    else
      toString v;
  variables = config.environment.variables // config.environment.sessionVariables;
  variable =
    name: v:
    "export ${name}=${lib.escapeShellArg (if lib.isList v then lib.concatStringsSep ":" v else v)}";
in
{
  lab.guest.kernelParams = [
    # as on NixOS; a serial line is slow to write to under emulation
    "loglevel=4"
    "oops=panic"
    # the command line names no root=, or a garbage initrd would leave the kernel waiting for it
    "rw"
    # an emulated CPU has nothing to be protected from, and pays for each measure
    "mitigations=off"
    "init_on_alloc=0"
    "nokaslr"
    # QEMU 7.2 finds what it translated by virtual address, too: with its libraries elsewhere each time,
    # a program would be translated again at each start, which was two fifths of all that QEMU did
    "norandmaps"
    "audit=0"
    "lsm=capability"
    "cryptomgr.notests"
    # its clock is the host's: nothing is won by measuring it, or by asking it again
    "tsc=reliable"
    "no_timer_check"
    "lpj=4000000"
    "random.trust_cpu=on"
    "8250.nr_uarts=1"
    # The kernel patches its own code while it boots. QEMU before 8.1 may let another emulated CPU run
    # half of such a patch, a panic in one boot of twenty, so there is no other until `init`
    "maxcpus=1"
    "noreplace-smp"
    # systemd asks the console what it is and waits for an answer that does not come
    "systemd.tty.term.console=vt220"
    "systemd.tty.rows.console=24"
    "systemd.tty.columns.console=80"
  ]
  # a machine that nobody looks at comes back by itself
  ++ optional (!golden) "panic=5";

  environment.etc = {
    sudoers = {
      mode = "0440";
      text = ''
        Defaults secure_path=${path}
        root ALL=(ALL:ALL) SETENV: ALL
        %wheel ALL=(ALL:ALL) ${
          optionalString (!config.security.sudo.wheelNeedsPassword) "NOPASSWD:"
        }SETENV: ALL
        ${config.security.sudo.extraConfig}
      '';
    };
    "modprobe.d/nixos.conf".text = concatLines (
      map (m: "blacklist ${m}") config.boot.blacklistedKernelModules
    );
    "tmpfiles.d/00-nixos.conf".text = concatLines config.systemd.tmpfiles.rules;
    "locale.conf".text = "LANG=C.UTF-8\n";
    "profile.d/variables.sh".text = concatLines (
      mapAttrsToList variable variables
      ++ mapAttrsToList (name: v: "alias ${name}=${lib.escapeShellArg v}") (
        filterAttrs (_: v: v != null) config.environment.shellAliases
      )
    );
    "systemd/system.conf".text =
      "[Manager]\n" + concatLines (mapAttrsToList (key: v: "${key}=${show v}") manager);
    "systemd/journald.conf".text = "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n";
  }
  // lib.optionalAttrs (sysctl != { }) {
    "sysctl.d/60-nixos.conf".text = concatLines (
      mapAttrsToList (key: v: "${key} = ${showSysctl v}") sysctl
    );
  }
  // lib.optionalAttrs (modules != [ ]) {
    "modules-load.d/nixos.conf".text = concatLines modules;
  };

  # a process less at boot where there is nothing to set or load
  systemd.services = {
    systemd-sysctl = {
      overrideStrategy = "asDropin";
      wantedBy = optional (sysctl != { }) "sysinit.target";
    };
    systemd-modules-load = {
      overrideStrategy = "asDropin";
      wantedBy = optional (modules != [ ]) "sysinit.target";
    };
  };
}

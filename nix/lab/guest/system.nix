# The other system settings of a host: sudo, sysctl, modules, tmpfiles, locale, systemd itself.
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
  # the golden generation's module configures what ends a stuck boot itself
  golden = config.myModules.system.boot.goldenGeneration.enable or false;
  manager =
    lib.optionalAttrs (!golden) {
      RuntimeWatchdogSec = "30s";
      RebootWatchdogSec = "2min";
    }
    // config.systemd.settings.Manager;
  # Debian's cloud kernel has no display driver, and trying to load one costs a second of the boot
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
    # as on NixOS; writing to a serial line is slow under emulation
    "loglevel=4"
    "oops=panic"
    # there is no root=, because with a garbage initrd the kernel would wait for that device forever
    "rw"
    # an emulated CPU needs no mitigations, and each one slows it down
    "mitigations=off"
    "init_on_alloc=0"
    "nokaslr"
    # QEMU 7.2 also keys translated code by virtual address: with libraries at random addresses, a program
    # is translated again at each start, which took two fifths of QEMU's time
    "norandmaps"
    "audit=0"
    "lsm=capability"
    "cryptomgr.notests"
    # the guest's clock is the host's: calibrating or rechecking it gains nothing
    "tsc=reliable"
    "no_timer_check"
    "lpj=4000000"
    "random.trust_cpu=on"
    "8250.nr_uarts=1"
    # The kernel patches its own code while it boots. Before QEMU 8.1 another emulated CPU may execute a
    # half-written patch, which panicked one boot in twenty, so `init` brings up the other CPUs
    "maxcpus=1"
    "noreplace-smp"
    # otherwise systemd queries the console's type and size and waits for an answer that never comes
    "systemd.tty.term.console=vt220"
    "systemd.tty.rows.console=24"
    "systemd.tty.columns.console=80"
  ]
  # an unattended machine must reboot by itself
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

  # saves a process at boot if there is nothing to set or load
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

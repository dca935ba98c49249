# What cases need of the embedded guest, as modules; nixos.nix has the same names.
let
  # /lab/boot has the image's kernel and first stage
  bootFile =
    what: script:
    { pkgs, ... }:
    {
      lab.guest.${what} = pkgs.runCommand what { } script;
    };
  unit =
    script:
    { pkgs, ... }:
    {
      systemd.services.lab-break = {
        wantedBy = [ "sysinit.target" ];
        unitConfig.DefaultDependencies = false;
        path = [ pkgs.iproute2 ];
        serviceConfig.Type = "oneshot";
        inherit script;
      };
    };
in
{
  # addresses are there from the first moment on
  base =
    { lib, options, ... }:
    {
      config = lib.optionalAttrs (options ? myModules.system.reachability) {
        myModules.system.reachability.timeout = lib.mkForce 20;
      };
    };

  # It boots as well: the kernel takes the newline for padding.
  anotherFirstStage = bootFile "initrd" "cat /lab/boot/initrd > $out; echo >> $out";
  brokenFirstStage = bootFile "initrd" "echo garbage > $out";
  # begins as firmware asks for, so that only the boot loader finds out
  unloadableKernel = bootFile "kernel" "echo MZ and no more > $out";
  noKernel = bootFile "kernel" "echo garbage > $out";
  # before systemd has armed the watchdog
  hangsEarly =
    { lib, ... }:
    {
      boot.kernelParams = lib.mkAfter [ "init=/usr/bin/cat" ];
    };
  # NICs have their addresses before systemd starts
  networkDown = unit "for nic in mgmt uplink lan; do ip link set $nic down; done";
}

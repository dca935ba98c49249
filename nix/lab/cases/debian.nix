# Modules that cases apply to the embedded guest; nixos.nix has the same names.
let
  # /lab/boot holds the image's kernel and first stage
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
  # the addresses are set before systemd starts, so a short timeout is enough
  base =
    { lib, options, ... }:
    {
      config = lib.optionalAttrs (options ? myModules.system.reachability) {
        myModules.system.reachability.timeout = lib.mkForce 20;
      };
    };

  # Still bootable: the kernel treats the newline as padding.
  anotherFirstStage = bootFile "initrd" "cat /lab/boot/initrd > $out; echo >> $out";
  brokenFirstStage = bootFile "initrd" "echo garbage > $out";
  # starts with the signature that firmware looks for, so only the boot loader notices
  unloadableKernel = bootFile "kernel" "echo MZ and no more > $out";
  noKernel = bootFile "kernel" "echo garbage > $out";
  # hangs before systemd has armed the watchdog
  hangsEarly =
    { lib, ... }:
    {
      boot.kernelParams = lib.mkAfter [ "init=/usr/bin/cat" ];
    };
  # NICs have their addresses before systemd starts
  networkDown = unit "for nic in mgmt uplink lan; do ip link set $nic down; done";
}

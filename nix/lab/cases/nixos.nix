# What cases need of a NixOS guest, as modules; debian.nix has the same names.
let
  # The boot loader is told of the kernel by the store path that it is in, and takes another beside it.
  kernel =
    text:
    { lib, pkgs, ... }:
    let
      file = pkgs.runCommand "kernel" { } "mkdir $out; echo ${text} > $out/bzImage";
    in
    {
      system.boot.loader.kernelFile = lib.mkForce "../${baseNameOf "${file}"}/bzImage";
    };
in
{
  # an emulated CPU takes its time from sshd to the last address
  base =
    { lib, options, ... }:
    {
      config = lib.optionalAttrs (options ? myModules.system.reachability) {
        myModules.system.reachability.timeout = lib.mkForce 60;
      };
    };

  # one file more in it, and it boots as well
  anotherFirstStage.boot.initrd.systemd.contents."/etc/lab-case".text = "another one";
  brokenFirstStage =
    {
      config,
      lib,
      pkgs,
      ...
    }:
    {
      system.build.initialRamdisk = lib.mkForce (
        pkgs.runCommand "initrd" { } "mkdir $out; echo garbage > $out/${config.system.boot.loader.initrdFile}"
      );
    };
  # begins as firmware asks for, so that only the boot loader finds out
  unloadableKernel = kernel "MZ and no more";
  noKernel = kernel "garbage";
  # the systemd of the first stage, which has armed the watchdog, dies before it finds the root
  hangsEarly.boot.initrd.systemd.services.lab-hang = {
    wantedBy = [ "initrd.target" ];
    before = [ "initrd-root-fs.target" ];
    unitConfig.DefaultDependencies = false;
    serviceConfig.Type = "oneshot";
    script = "kill -SEGV 1";
  };
  # udev brings a NIC, and then comes its address
  networkDown =
    { pkgs, ... }:
    {
      systemd.services.lab-break = {
        wantedBy = [ "multi-user.target" ];
        requires = [ "lab-network@mgmt.service" ];
        after = [ "lab-network@mgmt.service" ];
        before = [ "golden-boot-validation.service" ];
        path = [ pkgs.iproute2 ];
        serviceConfig.Type = "oneshot";
        script = "for nic in mgmt uplink lan; do ip link set $nic down || true; done";
      };
    };
}

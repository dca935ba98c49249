# Modules that cases apply to a NixOS guest; debian.nix has the same names.
let
  # The kernel file is given relative to the kernel's store path, so `../` can name a file in another store path.
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
  # on an emulated CPU the last address comes long after sshd
  base =
    { lib, options, ... }:
    {
      config = lib.optionalAttrs (options ? myModules.system.reachability) {
        myModules.system.reachability.timeout = lib.mkForce 180;
      };
    };

  # one more file in it; still bootable
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
  # starts with the signature that firmware looks for, so only the boot loader notices
  unloadableKernel = kernel "MZ and no more";
  noKernel = kernel "garbage";
  # crashes the first stage's systemd, which has armed the watchdog, before it finds the root
  hangsEarly.boot.initrd.systemd.services.lab-hang = {
    wantedBy = [ "initrd.target" ];
    before = [ "initrd-root-fs.target" ];
    unitConfig.DefaultDependencies = false;
    serviceConfig.Type = "oneshot";
    script = "kill -SEGV 1";
  };
  # udev brings up each NIC, and only then is its address set
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

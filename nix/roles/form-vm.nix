# Role vm: a QEMU guest. Headless unless the host lists a desktop.
#
# The lists of services and programs are mkDefault because lists are joined: set without it, the host's own
# list would be added to them. Lists that NixOS fills as well (kernel parameters and modules) are set without
# it, because a default would be dropped silently as soon as anything else defines them.
{ config, lib, ... }:
let
  inherit (lib) mkDefault;
in
{
  config = lib.mkIf (lib.elem "vm" config.roles) {
    modules = {
      apps.cli = mkDefault [
        "comma"
        "shell"
        "tools"
      ];
      services = {
        cli = mkDefault [ "atuin" ];
        networking = mkDefault [
          "openssh"
          "ssh"
          "syncthing"
          "tailscale"
        ];
      };
    };

    boot.loader = {
      systemd-boot.enable = mkDefault true;
      efi.canTouchEfiVariables = mkDefault true;
      timeout = mkDefault 3;
    };
    boot.initrd = {
      systemd.enable = mkDefault true;
      kernelModules = [
        "xhci_pci"
        "ohci_pci"
        "ehci_pci"
        "virtio_pci"
        "ahci"
        "usbhid"
        "sr_mod"
        "virtio_blk"
      ];
    };
    # the last console is /dev/console, so that init's messages reach the serial log
    boot.kernelParams = [
      "console=tty1"
      "console=ttyS0,115200"
    ];

    # for the screen of QEMU's -vga std; the plan's bochs_drm is no longer the module's name
    boot.kernelModules = [
      "virtio_gpu"
      "bochs"
    ];

    # spice-vdagentd is left out: it is wanted by graphical.target and never starts headless
    services.qemuGuest.enable = mkDefault true;

    networking.useDHCP = mkDefault true;

    # the primary user has a key and no password, so sudo could not ask for one
    security.sudo.wheelNeedsPassword = mkDefault false;

    # dotfiles are synchronized before each upgrade, with the remote that they were cloned from
    myModules.services.chezmoiSync.enable = mkDefault true;

    hostSpec.secretCategories = mkDefault [ "base" ];
  };
}

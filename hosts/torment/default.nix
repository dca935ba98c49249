# Torment - Minimal headless VM for GitOps testing
# Purpose: Test multi-host jj sync, auto-upgrade, and infrastructure features
{ lib, ... }:
{
  imports = [ ./hardware-configuration.nix ];

  # Disk configuration via nix/modules/disks.nix
  disks = {
    enable = true;
    layout = "btrfs";
    device = "/dev/vda";
    withSwap = false;
  };

  # ========================================
  # ROLE SELECTION
  # ========================================
  roles = [ "vm" ]; # Base VM role

  # ========================================
  # MODULE OVERRIDES (remove desktop)
  # ========================================
  # Remove desktop modules for headless operation
  modules.services.desktop = lib.mkForce [ ];
  modules.services.display-manager = lib.mkForce [ ];

  # Keep only essential headless services
  modules.services.cli = [ "atuin" ];
  modules.services.networking = [
    "openssh"
    "ssh"
    "syncthing"
    "tailscale"
  ];

  # ========================================
  # HOST IDENTITY
  # ========================================
  hostSpec = {
    hostName = "torment";
    primaryUsername = "rain";
  };

  # ========================================
  # AUTO-UPGRADE (GitOps testing)
  # ========================================
  myModules.services.autoUpgrade = {
    enable = true;
    mode = "local";
    schedule = "hourly"; # Frequent for testing

    # Safety features (Phase 15-03b)
    buildBeforeSwitch = true;
    # is-active, as is-enabled also passes for a service that crashed
    validationChecks = [
      "systemctl --quiet is-active sshd.service"
      "systemctl --quiet is-active tailscaled.service"
    ];
    onValidationFailure = "rollback";
  };

  # ========================================
  # GOLDEN GENERATION (boot safety)
  # ========================================
  myModules.system.boot.goldenGeneration = {
    enable = true;
    validateServices = [
      "sshd.service"
      "tailscaled.service"
    ];
    autoPinAfterBoot = true;
  };

  # The release whose defaults this host's state was created with; if unset, every evaluation warns
  system.stateVersion = "26.05";
}

import type { Subject, SubjectMaker } from './subject.ts'

/**
 * NixOS's `system.autoUpgrade`: `nixos-rebuild` on a timer. It writes no status, checks nothing after the switch and rolls
 * nothing back. Its promises are those of its options and the manual.
 */
export const nixosUpgrade: SubjectMaker = ({ branch, here }): Subject => ({
  kind: 'nixos-upgrade',
  title: 'system.autoUpgrade',
  unit: 'nixos-upgrade',
  promises: new Set(['deploy', 'refuse', 'offline', 'whole', 'reboot']),
  options: 'system.autoUpgrade',
  module: `{ lib, options, ... }:
{
  config = {
    system.autoUpgrade = {
      enable = lib.mkForce true;
      flake = lib.mkForce "git://git.lab/config.git?ref=${branch}";
      # upgrades run only when a case starts one
      dates = lib.mkForce "yearly";
      randomizedDelaySec = lib.mkForce "1s";
    };
  }${here ? '' : alone};
}
`,
})

/** Turns off the lab's agents, which it replaces, and the golden generation on a host that has them. */
const alone = `
  // lib.optionalAttrs (options ? myModules.services.autoUpgrade) {
    myModules.services.autoUpgrade.enable = lib.mkForce false;
    myModules.system = lib.optionalAttrs (options ? myModules.system.boot.goldenGeneration) {
      boot.goldenGeneration.enable = lib.mkForce false;
    };
  }`

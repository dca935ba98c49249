import type { Subject, SubjectMaker } from './subject.ts'

/**
 * NixOS's `system.autoUpgrade`: `nixos-rebuild` on a timer. It has no words of its own, checks nothing after
 * the switch and takes nothing back. What it promises is what its options and the manual say.
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
      # an upgrade comes when a case starts one
      dates = lib.mkForce "yearly";
      randomizedDelaySec = lib.mkForce "1s";
    };
  }${here ? '' : alone};
}
`,
})

/** A host that is upgraded by the lab's agents has this in their place, and no golden generation either. */
const alone = `
  // lib.optionalAttrs (options ? myModules.services.autoUpgrade) {
    myModules.services.autoUpgrade.enable = lib.mkForce false;
    myModules.system = lib.optionalAttrs (options ? myModules.system.boot.goldenGeneration) {
      boot.goldenGeneration.enable = lib.mkForce false;
    };
  }`

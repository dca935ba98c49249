# The agents of a VM of the lab use the lab's remotes, whatever the real host uses: a VM reaches no others, and must
# never push to one. Passed as text to `nix eval --apply`, so it imports nothing.
{
  config,
  lib,
  options,
  ...
}:
let
  upgrade = options.myModules.services.autoUpgrade or { };
  # above what a host sets, and below the mkForce of a case
  inLab = lib.mkOverride 60;
in
{
  config = lib.optionalAttrs (options ? myModules.services) {
    myModules.services = lib.mkIf (config.lab.vm or true) (
      lib.optionalAttrs (upgrade ? flakeUrl) {
        autoUpgrade = {
          flakeUrl = inLab "git+git://git.lab/config.git";
        }
        # the lab's remote has the flake at its top
        // lib.optionalAttrs (upgrade ? flakeDirectory) { flakeDirectory = inLab "."; };
      }
      // lib.optionalAttrs (options.myModules.services ? chezmoiSync) {
        chezmoiSync.repoUrl = inLab "git://git.lab/dotfiles.git";
      }
    );
  };
}

# The modules that point the agents of a host at the lab's remotes: host -> list of modules, empty if it names no other.
# A VM reaches no other remote, and must never push to one. Passed as text to `nix eval --apply`, so it imports nothing.
host:
let
  services = host.config.myModules.services or { };
  differs = value: wanted: value != null && value != wanted;

  config = "git+git://git.lab/config.git";
  url = services.autoUpgrade.flakeUrl or null;
  # a URL that the host's own assertion refuses stays, and is refused
  refused = builtins.match ".*[?&](ref|rev)=.*" (toString url) != null;
  fetches = differs url config && !refused;
  # the lab's remote has the flake at its top
  below = differs (services.autoUpgrade.flakeDirectory or null) ".";

  dotfiles = "git://git.lab/dotfiles.git";
  syncs = differs (services.chezmoiSync.repoUrl or null) dotfiles;
in
if !(fetches || below || syncs) then
  [ ]
else
  [
    (
      { lib, ... }:
      let
        # above what a host sets, and below the mkForce of a case
        inLab = lib.mkOverride 60;
      in
      {
        myModules.services =
          lib.optionalAttrs (fetches || below) {
            autoUpgrade =
              lib.optionalAttrs fetches { flakeUrl = inLab config; }
              // lib.optionalAttrs below { flakeDirectory = inLab "."; };
          }
          // lib.optionalAttrs syncs { chezmoiSync.repoUrl = inLab dotfiles; };
      }
    )
  ]

# A warning for each directory whose content a reboot loses, because its file system is in memory.
{ lib, config }:
# `who`: the module that keeps state there; `directories`: where
who: directories:
let
  mounts =
    lib.attrNames (config.fileSystems or { })
    # impermanence mounts persistent directories by units
    ++ map (mount: mount.where) (config.systemd.mounts or [ ]);
  isAround = directory: mount: lib.hasPrefix (lib.removeSuffix "/" mount + "/") (directory + "/");
  nearest =
    directory:
    lib.foldl' (
      found: mount: if lib.stringLength mount > lib.stringLength found then mount else found
    ) "" (lib.filter (isAround directory) mounts);
  isInMemory =
    mount:
    lib.elem (config.fileSystems.${mount}.fsType or "") [
      "tmpfs"
      "ramfs"
    ];
in
lib.concatMap (
  directory:
  lib.optional (isInMemory (nearest directory)) "${who} keeps what it knows in ${directory}, which is in memory here and gone after a boot: mount something there that stays, as with `environment.persistence`"
) directories

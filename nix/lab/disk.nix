# The disk that a NixOS host's configuration mounts, if the lab can make one like it: one GPT disk with an ESP
# and one ext4 or btrfs partition, each found by its name, and systemd-boot. Null if the lab cannot, as with
# a passphrase, a pool or a second disk.
# Passed as text to `nix eval --apply`, so it imports nothing. Returns the DiskLayout of lib/image/nixos.ts.
config:
let
  inherit (builtins)
    all
    attrNames
    concatMap
    elem
    elemAt
    filter
    head
    length
    listToAttrs
    match
    ;
  # { by; name; } of a device, or null
  named =
    device:
    let
      found = match "/dev/disk/by-(partlabel|partuuid|label|uuid)/([A-Za-z0-9_.:@=+-]+)" (
        if device == null then "" else device
      );
    in
    # MBR partitions have a PARTUUID of another form
    if
      found == null || head found == "partuuid" && match "[0-9a-fA-F-]{36}" (elemAt found 1) == null
    then
      null
    else
      {
        by = elemAt found 0;
        name = elemAt found 1;
      };

  loader = config.boot.loader;
  systems = filter (fs: fs.enable or true) (
    map (path: { mountPoint = path; } // config.fileSystems.${path}) (
      attrNames (config.fileSystems or { })
    )
  );
  # the file systems that are on a disk
  real = filter (
    fs:
    !(elem fs.fsType [
      "tmpfs"
      "ramfs"
      "overlay"
    ])
    && !(elem "bind" fs.options)
    && !(elem "rbind" fs.options)
  ) systems;
  isEsp = fs: fs.mountPoint == loader.efi.efiSysMountPoint or "/boot";
  esp = filter isEsp real;
  data = filter (fs: !(isEsp fs)) real;
  roots = filter (fs: fs.mountPoint == "/") data;
  root = head roots;

  subvolumes =
    fs:
    concatMap (
      option:
      let
        found = match "subvol=/?(.*)" option;
      in
      if found == null then [ ] else found
    ) fs.options;
  # mount point -> subvolume; no two may be the same
  mounted = listToAttrs (
    map (fs: {
      name = fs.mountPoint;
      value = if subvolumes fs == [ ] then "" else head (subvolumes fs);
    }) data
  );
  distinct =
    names:
    length names == length (
      attrNames (
        listToAttrs (
          map (name: {
            inherit name;
            value = null;
          }) names
        )
      )
    );

  swap = filter (entry: match "/dev/.*" (entry.device or "") != null) (config.swapDevices or [ ]);
  resume = config.boot.resumeDevice or "";

  can =
    (loader.systemd-boot.enable or false)
    && (loader.systemd-boot.xbootldrMountPoint or null) == null
    && (config.boot.initrd.luks.devices or { }) == { }
    && (config.boot.zfs.extraPools or [ ]) == [ ]
    && length esp == 1
    && (head esp).fsType == "vfat"
    && named (head esp).device != null
    && length roots == 1
    && named root.device != null
    && (head esp).device != root.device
    && all (fs: fs.device == root.device && fs.fsType == root.fsType) data
    && (
      (root.fsType == "ext4" && length data == 1)
      || (
        root.fsType == "btrfs"
        && all (
          fs: length (subvolumes fs) <= 1 && all (option: match "subvolid=.*" option == null) fs.options
        ) data
        && distinct (builtins.attrValues mounted)
      )
    )
    && all (entry: named entry.device != null && !(entry.randomEncryption.enable or false)) swap
    && (resume == "" || elem resume (map (entry: entry.device) swap));
in
if can then
  {
    esp = named (head esp).device;
    root = named root.device // {
      inherit (root) fsType;
      subvolumes = if root.fsType == "btrfs" then mounted else { };
    };
    swap = map (entry: named entry.device) swap;
    loader =
      if config.systemd ? package then
        "${config.systemd.package}/lib/systemd/boot/efi/systemd-bootx64.efi"
      else
        null;
  }
else
  null

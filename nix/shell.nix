# Programs that the tasks call on the host; the list for Debian is packages.debian.
{ pkgs }:
pkgs.mkShell {
  packages =
    with pkgs;
    [
      # static, for the guest's initrd; without applets on PATH, which would hide coreutils
      (busybox.override {
        enableStatic = true;
        enableAppletSymlinks = false;
      })
      age
      # for btrfs roots; the version in Debian 12 is too old to create subvolumes
      btrfs-progs
      cpio
      dosfstools
      e2fsprogs
      git
      jq
      just
      kmod
      mtools
      nix
      nodejs_22
      openssh
      openssl
      procps
      qemu_kvm
      shellcheck
      sops
      util-linux
      xz
      zstd
    ]
    # nixpkgs has no mmdebstrap (July 2026); without it the embedded guest's base image cannot be built
    # here, only used from the cache, and `just doctor` says so
    ++ lib.optional (pkgs ? mmdebstrap) pkgs.mmdebstrap;

  LAB_OVMF_CODE = pkgs.OVMF.firmware;
  LAB_OVMF_VARS = pkgs.OVMF.variables;
}

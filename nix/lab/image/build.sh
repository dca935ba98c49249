#!/bin/sh
# Builds the guest's base image into the directory $1. Runs as root of a namespace of its own (see
# lib/image.ts): no loop device, no mount that anyone else sees, and all of it dies with the lab.
#   $2 suite, $3 mirror, $4 proxy of apt or empty
# Leaves there: base.raw (GPT: ESP, ext4 root), esp.img and root.meta (what host layers are made
# against), boot/{kernel,initrd}, bin/busybox, packages.tsv, build.log. Prints `stage <name>` and
# `done <name> <MB that lie there>` as it goes.
set -eu
out=$1 suite=$2 mirror=$3 proxy=$4
recipe=$(cd "$(dirname "$0")" && pwd)
root=$out/root
umask 022
mkdir -p "$out/tmp" "$out/boot"
export TMPDIR="$out/tmp" LC_ALL=C.UTF-8
export PATH="$PATH:/usr/sbin:/sbin"

lines() { grep -v -e '^#' -e '^$' "$1"; }

debian() {
  set --
  for package in $(lines "$recipe/packages"); do set -- "$@" "--include=$package"; done
  [ -z "$proxy" ] || set -- "$@" "--aptopt=Acquire::http::Proxy \"$proxy\""
  # A mirror may serve a Release file that is past its date, and a host of another suite, or one
  # that keeps a frozen mirror, has no say in what is fresh
  # shellcheck disable=SC2016 # the hook's $1 is the root, which mmdebstrap gives it
  mmdebstrap --mode=root --variant=essential --verbose "$@" \
    --aptopt='Acquire::Check-Valid-Until "false"' \
    --aptopt='Acquire::Languages "none"' \
    --aptopt='Acquire::Retries "2"' \
    --aptopt='Acquire::http::Timeout "20"' \
    --aptopt='Apt::Install-Recommends "false"' \
    --extract-hook='cp "'"$recipe"'/dpkg.cfg" "$1/etc/dpkg/dpkg.cfg.d/lab"' \
    "$suite" "$root" "deb $mirror $suite main" </dev/null >"$out/build.log" 2>&1
  dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package}\t${Version}\n' >"$out/packages.tsv"
}

# Takes away what no guest needs, and all that Debian enables: what runs is the generation's affair.
trim() {
  cd "$root"
  rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/gitweb \
    usr/lib/udev/hwdb.d usr/lib/udev/hwdb.bin usr/lib/modules/*/System.map \
    usr/share/zoneinfo/right usr/share/zoneinfo/posix \
    var/lib/apt/lists/* var/cache/apt/*.bin var/cache/debconf/*-old var/log/* \
    etc/ssh/ssh_host_* etc/ssh/sshd_config etc/ssh/sshd_config.d etc/hostname etc/resolv.conf \
    etc/systemd/system etc/systemd/network usr/lib/systemd/network \
    etc/sudoers etc/sudoers.d etc/sysctl.d etc/motd etc/update-motd.d etc/nix
  : >etc/machine-id
  mkdir -p var/log/journal boot nix etc/ssh
  lines "$recipe/prune" | sed 's|^|usr/lib/systemd/system/|' | xargs rm
  # each generator costs a process at boot and at every daemon-reload
  find usr/lib/systemd/system-generators usr/lib/systemd/user-generators -type f \
    ! -name systemd-fstab-generator ! -name systemd-getty-generator -delete
  cp -r "$recipe/etc/." etc/
}

# The first stage: busybox, the modules needed before udev runs, and a script.
initrd() {
  cd "$root"
  version=$(basename usr/lib/modules/*)
  # in /lab, not in /boot: that is where the ESP goes
  mkdir -p lab/boot "$out/initrd/bin" "$out/initrd/modules"
  cp "usr/lib/modules/$version/vmlinuz" lab/boot/kernel
  rm "usr/lib/modules/$version/vmlinuz"
  cp usr/bin/busybox "$out/initrd/bin/busybox"
  cp "$recipe/init" "$out/initrd/init"
  chmod 755 "$out/initrd/init"
  # shellcheck disable=SC2046 # one word a module
  chroot . modprobe --set-version "$version" --show-depends --all $(lines "$recipe/modules") |
    sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' |
    while read -r file; do
      name=$(basename "$file" .xz)
      case $file in
        *.xz) xz -dc ".$file" >"$out/initrd/modules/$name" ;;
        *) cp ".$file" "$out/initrd/modules/$name" ;;
      esac
      echo "$name" >>"$out/initrd/modules.order"
    done
  (cd "$out/initrd" && find . | sort | cpio --quiet -o -H newc -R 0:0) >lab/boot/initrd
  # as files of a Nix store are: host layers give them a second name there
  chmod 444 lab/boot/*
  touch -d @1 lab/boot/*
  cp lab/boot/* "$out/boot/"
  mkdir -p "$out/bin"
  cp usr/bin/busybox "$out/bin/"
}

# The EFI system partition has 4 KiB clusters, the largest that FAT32 allows at this size: the
# firmware reads a kernel the faster for it.
esp() {
  mib=264
  truncate -s ${mib}M "$out/esp.img"
  mkfs.vfat -F 32 -s 8 -n ESP "$out/esp.img" >>"$out/build.log"
  mkdir -p "$out/esp/EFI/systemd" "$out/esp/EFI/BOOT" "$out/esp/loader/entries"
  # host layers rename these to what their generation 1 calls them
  mkdir "$out/esp/EFI/nixos"
  for file in kernel initrd; do cp "$out/boot/$file" "$out/esp/EFI/nixos/$file.efi"; done
  cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$out/esp/EFI/systemd/"
  cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$out/esp/EFI/BOOT/BOOTX64.EFI"
  # where the firmware ends when the boot loader cannot load a kernel: begin again, with the default
  printf 'reset -c\r\n' >"$out/esp/startup.nsh"
  mcopy -s -i "$out/esp.img" "$out"/esp/* ::
}

disk() {
  esp_start=1 root_start=$((1 + mib)) root_mib=1536
  truncate -s $((root_start + root_mib + 1))M "$out/base.raw"
  sfdisk --quiet "$out/base.raw" <<END
label: gpt
start=${esp_start}MiB, size=${mib}MiB, type=uefi, name=ESP
start=${root_start}MiB, size=${root_mib}MiB, type=linux, name=nixos
END
  dd if="$out/esp.img" of="$out/base.raw" bs=1M seek=$esp_start conv=sparse,notrunc status=none
  # no reserved blocks; inode tables and journal stay unwritten, which keeps image and overlay thin
  mke2fs -q -t ext4 -L nixos -m 0 -i 32768 -d "$root" \
    -E "offset=$((root_start * 1048576)),lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0" \
    "$out/base.raw" ${root_mib}M >>"$out/build.log" 2>&1
  e2image -r -o $((root_start * 1048576)) "$out/base.raw" "$out/root.meta" >>"$out/build.log" 2>&1
}

for stage in debian trim initrd esp disk; do
  echo "stage $stage"
  $stage
  echo "done $stage $(du -sm "$out" | cut -f 1)"
done
cd "$out"
rm -rf root initrd esp tmp

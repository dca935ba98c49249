#!/bin/sh
# Builds the guest's base image into the directory $1. Runs as root of a namespace of its own (see
# lib/image/image.ts): no loop device, no mount that anyone else sees, and all of it dies with the lab.
#   $2 suite, $3 mirror, $4 where the root begins in base.raw, in MiB, $5 its size in MiB, $6 proxy of apt or empty
# Leaves there: base.raw (an ext4 root at its place, and no more), boot/{loader.efi,kernel,initrd},
# bin/busybox, packages.tsv, build.log. Prints `stage <name>` and
# `done <name> <MB that lie there>` as it goes.
set -eu
out=$1 suite=$2 mirror=$3 root_start=$4 root_mib=$5 proxy=$6
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
    var/lib/apt/lists/* var/cache/apt/*.bin var/cache/debconf/*-old var/log/* \
    etc/ssh/ssh_host_* etc/ssh/sshd_config etc/ssh/sshd_config.d etc/hostname etc/resolv.conf \
    etc/systemd usr/lib/systemd/network etc/modules etc/modules-load.d \
    usr/lib/systemd/system/tmp.mount etc/sudoers etc/sudoers.d etc/sysctl.d etc/motd etc/update-motd.d etc/nix \
    usr/lib/systemd/system-generators/* usr/lib/systemd/user-generators/* usr/lib/sysctl.d
  : >etc/machine-id
  mkdir -p var/log/journal boot nix/store etc/ssh
  lines "$recipe/prune" | sed 's|^|usr/lib/systemd/system/|' | xargs rm
  keep usr/lib/tmpfiles.d dbus journal-nocow systemd tmp var
  # Filters of system calls and namespaces of its own take the journal's daemon a second to set up
  # under emulation, and nothing here needs protection from it
  sed -i -E '/^(SystemCall|Protect|Private|Restrict|IPAddress|LockPersonality|MemoryDeny|WatchdogSec)/d' \
    usr/lib/systemd/system/systemd-journald.service
  # the host's keys come by tmpfiles, and SSH waits for them
  sed -i 's/ systemd-journald.service//' usr/lib/systemd/system/systemd-tmpfiles-setup.service
  # `init` shows systemd this in place of libbpf, which it would probe the kernel with for a second
  mkdir -p lab/no-bpf
  : >lab/no-bpf/libbpf.so.1
  cp -r "$recipe/etc/." etc/
  # programs that are linked statically start ten times as fast under emulation: the generations' own
  # scripts have these first on their PATH
  mkdir -p lab/bin
  for applet in awk cat chmod chown cmp cp dd df grep ip ln mkdir mktemp mount mv readlink rm rmdir sed sort stat sync; do
    ln -s /usr/bin/busybox "lab/bin/$applet"
  done
}

programs() {
  sh "$recipe/programs.sh" "$root"
}

# keep <directory> <name without extension...>: removes all other files
keep() {
  dir=$1
  shift
  for file in "$dir"/*; do
    name=${file##*/}
    case " $* " in *" ${name%.*} "*) ;; *) rm -r "$file" ;; esac
  done
}

# The first stage: busybox, the modules needed before udev runs, and a script.
initrd() {
  cd "$root"
  version=$(basename usr/lib/modules/*)
  # in /lab, not in /boot: that is where the ESP goes
  mkdir -p lab/boot "$out/initrd/bin" "$out/initrd/lib/modules/$version"
  cp "usr/lib/modules/$version/vmlinuz" lab/boot/kernel
  rm "usr/lib/modules/$version/vmlinuz"
  cp usr/bin/busybox "$out/initrd/bin/busybox"
  for applet in mkdir modprobe mount sleep switch_root; do ln -s busybox "$out/initrd/bin/$applet"; done
  cp "$recipe/init" "$out/initrd/init"
  chmod 755 "$out/initrd/init"
  modules
  lines "$recipe/modules" >"$out/initrd/modules"
  # shellcheck disable=SC2046 # one word a module
  chroot . modprobe --set-version "$version" --show-depends --all $(cat "$out/initrd/modules") |
    sed -n 's/^insmod \([^ ]*\).*/.\1/p' | sort -u | xargs cp -t "$out/initrd/lib/modules/$version"
  (cd "$out/initrd" && depmod --basedir . "$version" && rm -f "lib/modules/$version"/modules.*.bin)
  (cd "$out/initrd" && find . | sort | cpio --quiet -o -H newc -R 0:0) >lab/boot/initrd
  # as files of a Nix store are: host layers give them a second name there
  chmod 444 lab/boot/*
  touch -d @1 lab/boot/*
  cp lab/boot/* "$out/boot/"
  cp usr/lib/systemd/boot/efi/systemd-bootx64.efi "$out/boot/loader.efi"
  mkdir -p "$out/bin"
  cp usr/bin/busybox "$out/bin/"
}

# Of the kernel's modules those that a virtual machine, its network and faults in it can ask for;
# decompressed, as xz takes an emulated CPU longer than reading does.
modules() {
  (
    cd "usr/lib/modules/$version"
    find kernel -type f -name '*.ko*' | grep -v -E "^kernel/($(lines "$recipe/keep-modules" | paste -s -d '|'))" | xargs rm
    find kernel -name '*.xz' -print0 | xargs -0 xz -d
    find kernel -depth -type d -empty -delete
  )
  chroot . depmod "$version"
}

# No reserved blocks; inode tables and journal stay unwritten, which keeps image and overlay thin
root() {
  truncate -s $((root_start + root_mib + 1))M "$out/base.raw"
  mke2fs -q -t ext4 -L nixos -m 0 -i 32768 -d "$root" \
    -E "offset=$((root_start * 1048576)),lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0" \
    "$out/base.raw" "${root_mib}M" >>"$out/build.log" 2>&1
}

for stage in debian trim programs initrd root; do
  echo "stage $stage"
  $stage
  echo "done $stage $(du -sm "$out" | cut -f 1)"
done
cd "$out"
rm -rf root initrd tmp

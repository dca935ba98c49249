#!/bin/busybox sh
# shellcheck shell=dash
# Makes the ESP match the system profile and the other profiles (system-profiles): one boot entry, kernel and
# first stage for each generation that is kept. The default is the generation of this script, or else the system
# profile's current one. The machine stays bootable throughout: new files are complete on the disk before an
# entry names them, and files that no entry names are removed last.
# `--check` only checks for free space. Names are NixOS's.
#
# Environment, for the disk of another system: ESP (default /boot), PROFILES (default: this system's).
set -eu
export PATH="/lab/bin:$PATH"
esp=${ESP:-/boot}
profiles=${PROFILES:-/nix/var/nix/profiles}
generation=$(cd -P "${0%/*}/.." && pwd -P)
fail() { echo "install-boot-entries: Cannot install boot entries: $1" >&2; exit 1; }
mounted=${ESP+given}
while read -r _ where _; do [ "$where" != "$esp" ] || mounted=1; done </proc/mounts
[ -n "$mounted" ] || fail "nothing is mounted at $esp"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# generations of each profile by number, as `<profile> <number> <toplevel>`: the newest ones up to the limit, and
# the current one
read -r limit <"$generation/configuration-limit"
for profile in "$profiles/system" "$profiles"/system-profiles/*; do
  case $profile in *-link | *'*') continue ;; esac
  current=$(readlink "$profile") name=${profile##*/}
  current=${current#"$name-"}
  for link in "$profile"-*-link; do
    number=${link##*/"$name-"}
    echo "$name ${number%-link} $(readlink "$link")"
  done | sort -n -k 2 | awk -v limit="$limit" -v current="${current%-link}" '
    { line[NR] = $0; number[NR] = $2 }
    END { for (i = 1; i <= NR; i++) if (!limit || i > NR - limit || number[i] == current) print line[i] }
  '
done >"$work/kept"

# `entry <number> <toplevel> <kernel> <initrd> <params>`, `file <name on the ESP> <source>`
default='' this='' system=$(readlink "$profiles/system")
while read -r profile number toplevel; do
  [ -e "$toplevel/init" ] || continue
  title=NixOS name=nixos-generation-$number
  if [ "$profile" != system ]; then
    title="NixOS [$profile]" name=nixos-$profile-generation-$number
  fi
  kernel=$(readlink -f "$toplevel/kernel")
  initrd=$(readlink -f "$toplevel/initrd")
  read -r params <"$toplevel/kernel-params"
  printf '%s %s.efi\n%s %s.efi\n' "$kernel" "${kernel##*/}" "$initrd" "${initrd##*/}" >>"$work/files"
  printf 'title %s\nsort-key nixos\nversion Generation %s\nlinux /EFI/nixos/%s.efi\ninitrd /EFI/nixos/%s.efi\noptions init=%s/init %s\n' \
    "$title" "$number" "${kernel##*/}" "${initrd##*/}" "$toplevel" "$params" >"$work/$name.conf"
  [ "$toplevel" != "$generation" ] || this=$name
  [ "$profile-$number-link" != "$system" ] || default=$name
done <"$work/kept"
[ -n "$default" ] || fail "generation $system is not in the store"
# if several generations are identical, the current one is the default
if [ -n "$this" ] && [ ! "$profiles/system" -ef "$generation" ]; then default=$this; fi
sort -u "$work/files" >"$work/wanted"

# Removes entries and kernels that no kept generation needs
prune() {
  for entry in "$esp"/loader/entries/nixos-*.conf; do
    [ -e "$work/${entry##*/}" ] || rm -f "$entry"
  done
  for file in "$esp"/EFI/nixos/*; do
    grep -q " ${file##*/}\$" "$work/wanted" || rm -f "$file"
  done
}
# Compares sizes (NixOS compares only names): comparing 17 MB takes seconds on an emulated CPU
missing() {
  while read -r source name; do
    if [ "$(stat -L -c %s "$source")" != "$(stat -c %s "$esp/EFI/nixos/$name" 2>/dev/null)" ]; then
      echo "$source $name"
    fi
  done <"$work/wanted"
}
# A file's size on the ESP in KiB: clusters of 4
# shellcheck disable=SC2017 # rounded up on purpose
size() { echo $((($(stat -L -c %s "$1") + 4095) / 4096 * 4)); }
# True if the missing files need more space than is free, in KiB; 256 for entries and directories
lacking() {
  need=256
  while read -r source _; do
    need=$((need + $(size "$source")))
  done <"$work/missing"
  free=$(df -Pk "$esp" | awk 'NR == 2 { print $4 }')
  [ "$need" -gt "$free" ]
}

missing >"$work/missing"
if lacking; then
  # space that a clean-up would free
  gain=0
  for file in "$esp"/EFI/nixos/*; do
    grep -q " ${file##*/}\$" "$work/wanted" || gain=$((gain + $(size "$file")))
  done
  [ "$need" -le $((free + gain)) ] ||
    fail "$esp has $(((free + gain) / 1024)) MiB free and $((need / 1024 + 1)) MiB are needed"
  crowded=1
fi
[ "${1-}" != --check ] || exit 0

mkdir -p "$esp/EFI/nixos" "$esp/loader/entries"
# Renames every `.new` file of a directory into place once all of them are on the disk
publish() {
  sync
  for file in "$1"/*.new; do mv "$file" "${file%.new}"; done
}
rm -f "$esp"/EFI/nixos/*.new "$esp"/loader/*.new "$esp"/loader/entries/*.new
[ -z "${crowded-}" ] || prune
if [ -s "$work/missing" ]; then
  while read -r source name; do cp "$source" "$esp/EFI/nixos/$name.new"; done <"$work/missing"
  publish "$esp/EFI/nixos"
fi
changed=
for entry in "$work"/nixos-*.conf; do
  cmp -s "$entry" "$esp/loader/entries/${entry##*/}" && continue
  cp "$entry" "$esp/loader/entries/${entry##*/}.new"
  changed=1
done
[ -z "$changed" ] || publish "$esp/loader/entries"
# Nobody watches the boot menu of a throwaway machine, so its timeout is 0. Other settings are kept.
{
  printf 'timeout 0\ndefault %s.conf\n' "$default"
  grep -v -e '^timeout ' -e '^default ' "$esp/loader/loader.conf" 2>/dev/null || :
} >"$work/loader.conf"
if ! cmp -s "$work/loader.conf" "$esp/loader/loader.conf"; then
  cp "$work/loader.conf" "$esp/loader/loader.conf.new"
  publish "$esp/loader"
fi
prune
sync
# NixOS's installer ends with these commands too; they are not for the disk of another system
if [ -z "${ESP+given}" ] && [ -x "$generation/extra-install-commands" ]; then
  "$generation/extra-install-commands" "$(sed -n 's,^options init=\(.*\)/init .*,\1,p' "$work/$default.conf")"
fi

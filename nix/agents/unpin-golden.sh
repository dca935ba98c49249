# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# Gives up the golden generation: the boot loader's own default boots again, with nothing to fall back to.

[[ $# -eq 0 ]] || { echo 'Usage: unpin-golden' >&2 && exit 2; }
need_root 'unpin the golden generation'
golden=$(field golden.json toplevel)
if [[ -z $golden ]]; then
  echo 'no generation is golden'
  exit 0
fi
locked
bootctl set-default '' || fail "Cannot unpin $golden: the boot loader's default cannot be set"
disarm
rm -f "$state/golden.json" "$gcroot" "$gcroot-next" "$entries"/golden-*
rm -rf "$copies"
# what loader.conf preferred was golden's entry
on_boot_error stay
echo "no longer golden: $golden"

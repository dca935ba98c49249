# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# Gives up the golden generation: the boot loader's own default boots again, with nothing to fall back to. A rebuild
# that turns golden off passes --turned-off: then a rebuild that turns it on again makes the same generation golden,
# as the first rebuild may be undone, for example by an upgrade that fails.

case ${1-} in
  '' | --turned-off) ;;
  *) echo 'Usage: unpin-golden' >&2 && exit 2 ;;
esac
need_root 'unpin the golden generation'
locked
golden=$(field golden.json toplevel)
if [[ -z $golden ]]; then
  # a pin that was cut off may have left files
  forget || fail "Cannot remove what is left of a golden generation on $GOLDEN_BOOT"
  echo 'no generation is golden'
  exit 0
fi
[[ -w $entries ]] || fail "Cannot unpin $golden: $entries cannot be written (is $GOLDEN_BOOT mounted?)"
bootctl set-default '' || fail "Cannot unpin $golden: the boot loader's default cannot be set"
disarm
# golden.json goes last: until then another run finds what to remove
forget || fail "Cannot unpin $golden: its files on $GOLDEN_BOOT cannot be removed"
if [[ -n ${1-} ]]; then write_state given-up "$golden" || true; else rm -f "$state/given-up"; fi
rm -f "$state/golden.json"
# loader.conf still prefers golden's entry
on_boot_error stay
echo "no longer golden: $golden"

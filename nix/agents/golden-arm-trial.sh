# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# golden-arm-trial [toplevel]: puts this generation on trial, by default the system profile's: the next boot tries it
# once. Called by every installer of boot entries, so that a manual rebuild is on trial as well.

need_root 'put a generation on trial'
toplevel=$(readlink -f "${1:-$profile}")
[[ -e $toplevel/init ]] || fail "Cannot put $toplevel on trial: it is no system"
# the holder of the lock may be pinning another generation
locked
golden=$(field golden.json toplevel)
if [[ -z $golden && -s $state/given-up ]]; then
  golden=$(<"$state/given-up")
  if [[ ! -e $golden/init ]]; then
    # garbage-collected meanwhile
    rm -f "$state/given-up"
  elif pin "$golden"; then
    echo "golden again: $golden"
  fi
  golden=$(field golden.json toplevel)
fi
if [[ -z $golden ]]; then
  # this entry, of a golden generation whose state is lost, would boot for ever, whatever the system profile is
  if [[ $(efi_variable LoaderEntryDefault) == golden-* ]]; then
    forget || fail "Cannot make $toplevel boot: the boot default is still the entry of a golden generation whose record is lost, and the default cannot be set"
    on_boot_error stay
  fi
  echo 'no golden generation yet: nothing to fall back to, so nothing is on trial'
  exit 0
fi
# a trial needs a way back
keep_golden || fail "Cannot put $toplevel on trial: golden's files on $GOLDEN_BOOT are not whole"
if [[ $toplevel == "$golden" ]]; then
  disarm
  echo "the golden generation boots: $golden"
  exit 0
fi
reason=$(unloadable "$golden" "$entries/$(field golden.json entry)")
if [[ -n $reason ]]; then
  complain "$reason, and is written anew"
  rm -f "$copies"/*
  stage "$golden" || fail "Cannot put $toplevel on trial: golden could not be booted after it"
fi
arm "$toplevel" || exit 1
echo "on trial $when: $toplevel"
failure=$(last_failure "$toplevel")
[[ -z $failure ]] || echo "it failed a trial before: $failure"

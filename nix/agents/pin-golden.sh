# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh and golden-services.sh come first
# Makes the booted generation golden, after validating it.

case ${1-} in
  '') ;;
  *) echo 'Usage: pin-golden' >&2 && exit 2 ;;
esac
need_root 'pin the golden generation'
booted=$(booted_system)
running=$(readlink -f /run/current-system)
if [[ $running != "$booted" ]]; then
  complain "$running runs since a switch and has not been booted"
  fail "Cannot pin it: reboot first"
fi
if upgrade_pending; then
  complain "an upgrade to $booted was cut off before its own checks have run"
  fail 'Cannot pin it: let the upgrade end first (systemctl start nix-local-upgrade)'
fi
validate || fail "Cannot pin $booted: $bad"
locked
former=$(field golden.json toplevel)
pin "$booted" || exit 1
forgive "$booted"
echo "golden from now on: $booted"
trial=$(field trial.json toplevel)
words='still on trial'
# it became the system profile when there was no golden yet for a trial to fall back to
if [[ -z $former && -z $trial ]]; then trial=$(readlink -f "$profile") words='on trial'; fi
if [[ -z $trial || $trial == "$booted" ]]; then
  disarm
elif arm "$trial" "$(field trial.json tries)"; then
  # the trial now falls back to the new golden
  echo "$words $when: $trial"
fi

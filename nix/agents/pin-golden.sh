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
validate || fail "Cannot pin $booted: $bad"
locked
pin "$booted" || exit 1
disarm
forgive "$booted"
echo "golden from now on: $booted"

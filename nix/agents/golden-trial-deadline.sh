# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# A trial boot that got stuck before it could be validated, with a systemd that feeds the watchdog all the
# while, has failed.
need_root 'judge this boot'
# whoever has the lock may have validated it
locked
# one that is left to an upgrade was, too
on_trial && [[ ! -e $left ]] || exit 0
if systemctl --quiet is-active emergency.target; then
  fail_trial 'it ended in emergency mode'
else
  fail_trial "it was not validated within $GOLDEN_DEADLINE s"
fi

# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# A trial boot that got stuck before it could be validated, while systemd kept feeding the watchdog,
# has failed.
need_root 'judge this boot'
# the holder of the lock may have validated it
locked
# a boot that is left to an upgrade has been validated, too
on_trial && [[ ! -e $left ]] || exit 0
if systemctl --quiet is-active emergency.target; then
  fail_trial 'it ended in emergency mode'
else
  fail_trial "it was not validated within $GOLDEN_DEADLINE s"
fi

# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh and golden-services.sh come first
# Is this boot good, and what follows from it?
#
#   on trial, good      it becomes golden (GOLDEN_AUTO_PIN), or is armed for one more boot
#   on trial, bad       written down as failed; reboot, which is golden's
#   golden, any         a trial that did not come up is written down, and golden is the profile again
#   golden, bad         stays up and says so: there is nothing to go back to
#   none golden, good   it becomes golden (GOLDEN_AUTO_PIN)
need_root 'validate this boot'

# From here on a reboot leads to a system that is known to work
guard() {
  echo "$GOLDEN_PANIC" >/proc/sys/kernel/panic
  if [[ $GOLDEN_WATCHDOG != 0 && -c /dev/watchdog && " $(</proc/cmdline) " == *' systemd.watchdog_sec=0 '* ]]; then
    busctl set-property org.freedesktop.systemd1 /org/freedesktop/systemd1 \
      org.freedesktop.systemd1.Manager RuntimeWatchdogUSec t "$((GOLDEN_WATCHDOG * 1000000))" ||
      complain 'the watchdog could not be turned on'
  fi
}

# What became of the trial, now that golden is booted
judge_trial() {
  local trial phase failure
  trial=$(field trial.json toplevel) phase=$(field trial.json state)
  [[ -n $trial && $(field trial.json boot) != "$(this_boot)" ]] || return 0
  if [[ $phase != armed ]]; then
    echo "the trial of $trial was interrupted before it was armed"
    disarm
    [[ $(readlink -f "$profile") != "$trial" ]] || arm "$trial" || true
    return 0
  fi
  failure=$(last_failure "$trial")
  # its own boot has written down why, unless it did not get so far
  if [[ ${failure%% *} < $(field trial.json armedAt) ]]; then
    failure=' it did not come up: it panicked, hung or lost its power'
    record_failure "$trial" "${failure# }"
  fi
  echo "FAILED  the trial of $trial: ${failure#* }"
  unlocked
  if ! profile_to_golden; then
    complain 'golden could not be made the system profile and the default in the boot loader'
    return 0
  fi
  locked
  disarm
}

locked
booted=$(booted_system)
golden=$(field golden.json toplevel)
if [[ -n $golden ]]; then
  keep_golden || complain "golden's boot entry could not be made whole"
  [[ $booted != "$golden" ]] || judge_trial
fi

unlocked
good=1
validate || good=
locked

if on_trial; then
  if [[ -z $good ]]; then
    fail_trial "$bad"
    exit 1
  fi
  forgive "$booted"
  if [[ $GOLDEN_AUTO_PIN == true ]] && pin "$booted"; then
    disarm
    echo "golden from now on: $booted"
  else
    # the profile's generation boots again, and can fall back again
    arm "$booted" && echo "validated, and not golden: $booted"
  fi
elif [[ $booted == "$golden" ]]; then
  if [[ -z $good ]]; then
    complain 'the golden generation itself is not well; it keeps running, as there is nothing to go back to'
    exit 1
  fi
  guard
  echo "the golden generation is well: $golden"
elif [[ -n $good && -z $golden && $GOLDEN_AUTO_PIN == true ]]; then
  pin "$booted" || exit 1
  echo "golden from now on: $booted"
  # made the system while this boot was looked at, when there was nothing yet that a trial could come back to
  next=$(readlink -f "$profile")
  if [[ $next != "$booted" ]] && arm "$next"; then echo "on trial at the next boot: $next"; fi
else
  echo "booted: $booted, which is neither golden nor on trial"
fi
[[ -n $good ]]

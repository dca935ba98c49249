# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh and golden-services.sh come first
# golden-boot-validation [--upgraded]: is this boot good, and what follows from it?
#
#   on trial, good      becomes golden (GOLDEN_AUTO_PIN), or is armed for one more boot
#   on trial, bad       is recorded as failed; reboots into golden
#   golden, any         a trial that did not come up is recorded, and golden becomes the profile again
#   golden, bad         stays up and says so: there is nothing to go back to
#   no golden, good     becomes golden (GOLDEN_AUTO_PIN)
#
# A good boot of a generation whose upgrade was cut off is not pinned yet, and boots again like one on trial. The
# upgrade's next run completes it with its own checks, or rolls it back; after it, --upgraded does the rest.
case ${1-} in
  '' | --upgraded) ;;
  *) echo 'Usage: golden-boot-validation [--upgraded]' >&2 && exit 2 ;;
esac
need_root 'validate this boot'
if [[ -n ${1-} ]]; then
  [[ -e $left ]] || exit 0
  # the upgrade has rolled back
  if [[ ! /run/current-system -ef /run/booted-system ]]; then
    rm -f "$left"
    exit 0
  fi
fi

# From here on a reboot leads to a system that is known to work
guard() {
  echo "$GOLDEN_PANIC" >/proc/sys/kernel/panic
  if [[ $GOLDEN_WATCHDOG != 0 && -c /dev/watchdog && " $(</proc/cmdline) " == *' systemd.watchdog_sec=0 '* ]]; then
    busctl set-property org.freedesktop.systemd1 /org/freedesktop/systemd1 \
      org.freedesktop.systemd1.Manager RuntimeWatchdogUSec t "$((GOLDEN_WATCHDOG * 1000000))" ||
      complain 'the watchdog could not be turned on'
  fi
}

# Finds out how the trial ended, now that golden is booted
judge_trial() {
  local trial why tries failure
  trial=$(field trial.json toplevel)
  [[ -n $trial && $(field trial.json boot) != "$(this_boot)" ]] || return 0
  # it has become golden, and a power cut prevented the removal of its trial record
  if [[ $trial == "$golden" ]]; then
    disarm
    return 0
  fi
  why=$(not_started)
  if [[ -n $why ]]; then
    echo "the trial of $trial was not started: $why"
    if [[ $(readlink -f "$profile") != "$trial" ]]; then
      disarm
      return 0
    fi
    tries=$(field trial.json tries)
    if ((tries < 2)); then
      if arm "$trial" $((tries + 1)); then echo "on trial $when: $trial"; fi
      return 0
    fi
    record_failure "$trial" "it was armed $((tries + 1)) times and never started: $why"
  elif [[ $(field trial.json state) != failed ]]; then
    # its own boot did not get far enough to record a reason
    record_failure "$trial" 'it did not come up: it panicked, hung or lost its power'
  fi
  failure=$(last_failure "$trial")
  echo "FAILED  the trial of $trial: ${failure#* }"
  unlocked
  if ! profile_to_golden; then
    complain 'golden could not be made the system profile and the default in the boot loader'
    return 0
  fi
  locked
  disarm
}

leave() {
  : >"$left"
  echo "validated: $booted, which becomes golden once the upgrade to it has run its own checks"
  exit 0
}

locked
booted=$(booted_system)
golden=$(field golden.json toplevel)
if [[ -n $golden ]]; then
  keep_golden || complain "golden's boot entry could not be restored"
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
  if upgrade_pending; then
    arm "$booted" || true
    leave
  fi
  rm -f "$left"
  forgive "$booted"
  if [[ $GOLDEN_AUTO_PIN == true ]] && pin "$booted"; then
    disarm
    echo "golden from now on: $booted"
  else
    # it boots again, and can fall back again
    arm "$booted" && echo "validated, but not made golden: $booted"
  fi
elif [[ $booted == "$golden" ]]; then
  if [[ -z $good ]]; then
    complain 'the golden generation itself is not well; it keeps running, as there is no other generation to fall back to'
    exit 1
  fi
  guard
  echo "the golden generation is well: $golden"
elif [[ -n $good && -z $golden && $GOLDEN_AUTO_PIN == true ]]; then
  if upgrade_pending; then leave; fi
  rm -f "$left"
  pin "$booted" || exit 1
  echo "golden from now on: $booted"
  # a rebuild while this boot was validated had no golden to fall back to, so it could not be armed then
  next=$(readlink -f "$profile")
  if [[ $next != "$booted" ]] && arm "$next"; then echo "on trial $when: $next"; fi
else
  echo "booted: $booted, which is neither golden nor on trial"
fi
[[ -n $good ]]

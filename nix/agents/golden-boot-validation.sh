# shellcheck shell=bash
# Is this boot good? Every unit of GOLDEN_SERVICES has to be active within GOLDEN_TIMEOUT seconds. A unit
# of GOLDEN_UNAVAILABLE, which this guest cannot have, is n/a. So far nothing is pinned or rolled back.

deadline=$((SECONDS + GOLDEN_TIMEOUT))
failed=0

reason_unavailable() { # reason_unavailable <unit>: prints the reason, fails where there is none
  local unit reason
  while read -r unit reason; do
    if [[ $unit == "$1" ]]; then
      echo "$reason"
      return 0
    fi
  done <<<"$GOLDEN_UNAVAILABLE"
  return 1
}

# A unit that has failed for good ends the wait; one that is being started is waited for.
wait_active() { # wait_active <unit>: prints the last state
  local state
  while true; do
    state=$(systemctl is-active "$1" || true)
    if [[ $state == active || $state == failed || $SECONDS -ge $deadline ]]; then break; fi
    sleep 1
  done
  echo "$state"
  [[ $state == active ]]
}

for unit in $GOLDEN_SERVICES; do
  if reason=$(reason_unavailable "$unit"); then
    echo "n/a     $unit: $reason"
  elif state=$(wait_active "$unit"); then
    echo "active  $unit"
  else
    echo "FAILED  $unit is $state"
    failed=1
  fi
done

"$GOLDEN_SHOW"
exit "$failed"

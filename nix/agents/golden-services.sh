# shellcheck shell=bash
# shellcheck disable=SC2154 # reachability.sh comes first
# Whether what a good boot needs is up: every unit of GOLDEN_SERVICES must become active (reloading counts) within
# GOLDEN_TIMEOUT seconds, and still be active, without a restart, GOLDEN_SETTLE seconds later; and the host must be
# reachable (reachability.sh). A unit of GOLDEN_UNAVAILABLE, which this guest cannot have, is n/a: neither good
# nor bad.

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

# Sets `bad` to the units that have failed and `waiting` to those that are not active yet, with their states,
# and `restarts` to how often each was restarted. One call for all units, as each is slow under emulation.
look() {
  local key value answered=0
  local -A of=()
  waiting='' bad='' restarts=''
  # an empty line ends the lines of a unit
  while IFS='=' read -r key value; do
    if [[ -n $key ]]; then
      of[$key]=$value
      continue
    fi
    answered=$((answered + 1))
    restarts+=" ${of[Id]}:${of[NRestarts]-}"
    if [[ ${of[LoadState]} == not-found ]]; then
      bad+="${of[Id]} does not exist, "
    elif [[ ${of[ActiveState]} == failed ]]; then
      bad+="${of[Id]} is failed, "
    elif [[ ${of[ActiveState]} != @(active|reloading|refreshing) ]]; then
      waiting+="${of[Id]} is ${of[ActiveState]} (${of[SubState]}), "
    fi
    of=()
  done < <(systemctl show --property=Id,LoadState,ActiveState,SubState,NRestarts -- "${units[@]}" && echo)
  if ((answered < ${#units[@]})); then
    waiting+="systemd says nothing of $((${#units[@]} - answered)) of ${#units[@]} units, "
  fi
}

# Prints what it found; fails with `bad` set to what is wrong.
validate() {
  local deadline unit reason before
  units=() bad=''
  for unit in $GOLDEN_SERVICES; do
    if reason=$(reason_unavailable "$unit"); then echo "n/a     $unit: $reason"; else units+=("$unit"); fi
  done
  if [[ ${#units[@]} -eq 0 ]]; then
    reachable && return
    bad=$unreachable
    echo "FAILED  $bad"
    return 1
  fi
  since_boot
  deadline=$((REPLY + GOLDEN_TIMEOUT))
  look
  # a unit that has failed for good ends the wait; one that is still starting does not
  while [[ -z $bad && -n $waiting && $REPLY -lt $deadline ]]; do
    sleep 1
    look
    since_boot
  done
  if [[ -z $bad$waiting ]] && ! reachable; then bad="$unreachable, "; fi
  if [[ -z $bad$waiting ]]; then
    before=$restarts
    sleep "$GOLDEN_SETTLE"
    look
    [[ $restarts == "$before" ]] || bad+='a unit was restarted, '
  fi
  bad=$bad$waiting
  bad=${bad%, }
  if [[ -n $bad ]]; then
    echo "FAILED  $bad"
    return 1
  fi
  printf 'active  %s\n' "${units[@]}"
}

# shellcheck shell=bash
# The prelude of the probes' script. Probes are written in bash, preferably with builtins only: under emulation each
# program takes a twentieth of a second or more to start, so systemd is asked for all units at once. `probe` appends an
# `ask` and a `tell` line for each probe that starts programs, and a `tell_now` line for each other one.

end=0

# The answers of a guest that still boots are not final, even at a moment when no unit is starting. This polls, because
# `is-system-running --wait` misses the end of a boot that happens before the bus is up.
until [[ $SECONDS -ge 120 || $(systemctl is-system-running) != @(initializing|starting) ]]; do sleep 0.5; done
units=$(systemctl list-units --all --plain --no-legend --no-pager)

unit() { # unit <name>: its load, active and sub state; fails when it is not active
  local name load active sub _
  while read -r name load active sub _; do
    [[ $name == "$1" ]] || continue
    echo "$load $active $sub"
    [[ $active == active ]]
    return
  done <<<"$units"
  echo 'not-found inactive dead'
  return 1
}
# failed [unit]: the units that have failed, except that one, and those that keep restarting: such a unit is up most of
# the time, and systemd never reports it as failed.
failed() {
  local name _ active sub
  while read -r name _ active sub _; do
    if [[ $active == failed || $sub == auto-restart* ]] && [[ $name != "${1-}" ]]; then echo "$name"; fi
  done <<<"$units"
  restarting "${1-}"
}

# The services that have restarted at least twice and have not yet been up for twice their average uptime. That average
# is the time from the boot to the last start, divided by the restarts. After 300 s up a service no longer counts.
restarting() { # restarting <unit to leave out>
  local line up since often lasted asked=''
  local -A of=()
  IFS=. read -r up _ </proc/uptime
  while IFS= read -r line; do
    if [[ -n $line ]]; then
      of[${line%%=*}]=${line#*=}
      continue
    fi
    often=${of[NRestarts]:-0} asked+=${of[Id]-}
    if [[ $often -ge 2 && ${of[Id]} != "$1" && ${of[SubState]} != auto-restart* && ${of[ActiveState]} != failed ]]; then
      since=$((up - ${of[ActiveEnterTimestampMonotonic]:-0} / 1000000))
      lasted=$(((up - since) / often))
      if [[ ${of[ActiveState]} != active || ($since -lt $((2 * lasted)) && $since -lt 300) ]]; then
        echo "${of[Id]} (restarted $often times)"
      fi
    fi
    of=()
  done < <(systemctl show --property=Id,NRestarts,ActiveState,SubState,ActiveEnterTimestampMonotonic '*.service' && echo)
  [[ -n $asked ]] || echo 'systemd does not answer'
}

ask() { # ask <snippet>: prints its output, a record separator, and its exit status
  trap 'printf "\036%s" "$?"' EXIT
  eval "$1" 2>&1 </dev/null
}

# Runs a snippet that starts no program, so it cannot hang and needs no subshell. Prints the answer for the lab: the
# probe's name, its output and its exit status.
tell_now() { # tell_now <name> <snippet>
  # a snippet may set $1 and any common variable name, so what this function and later probes need is local
  local probe_of_mine=$1 units=$units end=$end
  printf '\036%s\n' "$1"
  eval "$2" 2>&1 </dev/null
  printf '\n\036%s %s\n' "$probe_of_mine" "$?"
}

# Prints the answer of a probe that `ask` started. One that has not ended at second `end` is killed with its children,
# and nothing is printed.
tell() { # tell <name> <descriptor> <pid>
  local text='' left=$((end - SECONDS))
  IFS= read -rd '' -t $((left > 0 ? left : 1)) -u "$2" text
  if [[ $text != *$'\036'* ]]; then
    kill -KILL $(pgrep --parent "$3") "$3" 2>/dev/null
    return
  fi
  printf '\036%s\n%s\n\036%s %s\n' "$1" "${text%$'\036'*}" "$1" "${text##*$'\036'}"
}

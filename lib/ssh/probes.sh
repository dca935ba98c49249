# shellcheck shell=bash
# What probes are written in: bash, and best its builtins. Under emulation a program that is started costs a
# twentieth of a second and more, so systemd is asked for all units at once. `ask` and `tell` lines follow, a pair a probe.

end=0

# A guest that still boots has answers that are not yet true, also where nothing is being started at this moment. It
# is asked again and again, as `is-system-running --wait` misses the end of a boot that comes before the bus is there.
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
# failed [unit]: the units that have failed, but for that one, with those that are started again and again:
# such a one is up most of the time, and systemd never calls it failed.
failed() {
  local name _ active sub
  while read -r name _ active sub _; do
    if [[ $active == failed || $sub == auto-restart* ]] && [[ $name != "${1-}" ]]; then echo "$name"; fi
  done <<<"$units"
  restarting "${1-}"
}

# A service that has fallen over at least twice, and is not up for twice as long as it used to be. On average it
# was up for the time since the boot, divided by the restarts.
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

ask() { # ask <snippet>: what it says, a record separator, how it ended
  trap 'printf "\036%s" "$?"' EXIT
  eval "$1" 2>&1 </dev/null
}

# For the other side: its name, its text, and how it ended. For a snippet that starts no program, and so can
# neither hang nor be worth a process of its own.
tell_now() { # tell_now <name> <snippet>
  # a snippet may set $1, and variables of any likely name: what others go by stays as it is
  local probe_of_mine=$1 units=$units end=$end
  printf '\036%s\n' "$1"
  eval "$2" 2>&1 </dev/null
  printf '\n\036%s %s\n' "$probe_of_mine" "$?"
}

# The same of one that was asked; nothing when it has not ended at second `end`: it is killed then, with what
# it has started.
tell() { # tell <name> <descriptor> <pid>
  local text='' left=$((end - SECONDS))
  IFS= read -rd '' -t $((left > 0 ? left : 1)) -u "$2" text
  if [[ $text != *$'\036'* ]]; then
    kill -KILL $(pgrep --parent "$3") "$3" 2>/dev/null
    return
  fi
  printf '\036%s\n%s\n\036%s %s\n' "$1" "${text%$'\036'*}" "$1" "${text##*$'\036'}"
}

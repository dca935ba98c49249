# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# How services are, by what systemd says of them: which have come up since the switch, and which do not stay up.

ask_systemd() { # ask_systemd <command of systemctl...>; says nothing where systemd is not what runs
  [[ -d /run/systemd/system ]] || return 0
  timeout 60 systemctl "$@" 2>/dev/null 9>&-
}

# Every service that systemd knows: `<restarts> <when it became active, in us since the boot> <state>/<sub state>
# <type>` by its name, in `services`
declare -A services=() services_before=()
look_at_services() {
  local text line
  local -A of=()
  services=()
  text=$(ask_systemd show --property=Id,Type,NRestarts,ActiveState,SubState,ActiveEnterTimestampMonotonic '*.service') || return
  while IFS= read -r line; do
    if [[ -n $line ]]; then
      of[${line%%=*}]=${line#*=}
    elif [[ -n ${of[Id]-} ]]; then
      services[${of[Id]}]="${of[NRestarts]:-0} ${of[ActiveEnterTimestampMonotonic]:-0} ${of[ActiveState]}/${of[SubState]} ${of[Type]-}"
      of=()
    fi
  done <<<"$text"$'\n'
  # no answer at all is none, however systemctl ended
  [[ ${#services[@]} -gt 0 || ! -d /run/systemd/system ]]
}

remember_services() { # as they are before the switch; fails where they cannot be asked
  local unit
  look_at_services || return
  for unit in "${!services[@]}"; do services_before["$unit"]=${services["$unit"]}; done
}

started_since() { # started_since <service>: whether it came up after the switch began, and stays up
  local before after
  read -r -a before <<<"${services_before[$1]-}"
  read -r -a after <<<"${services[$1]}"
  [[ ${after[2]} == @(active/running|activating/*) && ${after[1]} != "${before[1]-}" ]]
}

# Whether a service was restarted time and again before the switch: such a loop may have been met as it waited, as it
# started or as it was being ended.
was_restless() { # was_restless <service>
  local before
  read -r -a before <<<"${services_before[$1]-}"
  [[ ${before[0]:-0} -gt 0 ]] || return
  since_boot
  [[ ${before[2]} == *activating/* || $((REPLY - before[1] / 1000000)) -lt 600 ]]
}
# Whether one waits to be started again as it did before: the count of a service that the switch has started begins anew.
waits_as_before() { # waits_as_before <service>
  [[ ${services[$1]-} && ${services[$1]%% *} -ge ${services_before[$1]%% *} ]]
}

# Services that do not stay up, though they run at this moment or will again, one a line in REPLY. Those that
# were the same before the switch, or had failed, are no reason to take it back.
restless() {
  local unit now first before units=()
  local -A at_first=()
  for unit in "${!services[@]}"; do at_first[$unit]=${services[$unit]}; done
  REPLY=''
  look_at_services || return
  for unit in "${!services[@]}"; do
    read -r -a now <<<"${services[$unit]}"
    read -r -a first <<<"${at_first[$unit]-}"
    read -r -a before <<<"${services_before[$unit]-}"
    if was_restless "$unit"; then continue; fi
    if [[ $'\n'${failed_before-}$'\n' == *$'\n'"$unit"$'\n'* ]]; then continue; fi
    if [[ ${now[0]} -gt ${first[0]:-0} ]]; then
      units+=("$unit does not stay up: it was restarted $((now[0] - ${first[0]:-0})) times within $UPGRADE_SETTLE s")
    elif [[ ${now[2]} == activating/* && ${now[2]} != */auto-restart* && ${now[3]-} != oneshot &&
      ${first[2]-} == activating/* && ${before[2]-} != activating/* ]]; then
      units+=("$unit has not come up")
    fi
  done
  local IFS=$'\n'
  REPLY="${units[*]}"
}

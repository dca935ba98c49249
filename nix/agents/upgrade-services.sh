# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# The state of services by what systemd reports: which have come up since the switch, and which do not stay up.

ask_systemd() { # ask_systemd <command of systemctl...>; prints nothing where systemd does not run
  [[ -d /run/systemd/system ]] || return 0
  timeout 60 systemctl "$@" 2>/dev/null 9>&-
}

# `services` has every service that systemd knows, by name: `<restarts> <when it became active, in us since the boot>
# <state>/<sub state> <type>`
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
  # an empty answer is a failure, however systemctl ended
  [[ ${#services[@]} -gt 0 || ! -d /run/systemd/system ]]
}

remember_services() { # their state before the switch; fails where systemd cannot be asked
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

# Whether a service was restarted again and again before the switch: the loop may have been observed while it waited,
# started or was being stopped.
was_restless() { # was_restless <service>
  local before
  read -r -a before <<<"${services_before[$1]-}"
  [[ ${before[0]:-0} -gt 0 ]] || return
  since_boot
  [[ ${before[2]} == *activating/* || $((REPLY - before[1] / 1000000)) -lt 600 ]]
}
# Whether a service waits for a restart as it did before: one that the switch started counts from zero again.
waits_as_before() { # waits_as_before <service>
  [[ ${services[$1]-} && ${services[$1]%% *} -ge ${services_before[$1]%% *} ]]
}

# Services that do not stay up, though they run at this moment or will again, one a line in REPLY. Those that
# did the same before the switch, or had failed, are no reason to roll back.
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

# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# The status and the records of the upgrade. All are in the state directory, where each file is complete
# on the disk before it gets its name:
#   status.json       phase and outcome of the last run, or of the current one
#   transaction.json  the state before a run's first change; removed once the upgrade is accepted, or everything
#                     is known to be restored
#   deployed          `<commit> <commit of the remote> <toplevel> <time>` of the last accepted upgrade, and why its
#                     validation failed, if it did and the host is set to notify
#   known-bad         `<revision> <outcome> <time> <reason>`, one a line
#
# Starting a program and forking are slow on an emulated CPU, so functions that are called often answer in REPLY
# instead of on standard output.
# Parts of one program, in the order of `parts` in ../modules/auto-upgrade.nix; nix-local-upgrade.sh is the last.

# the output of programs is parsed in English, whatever the machine's language is; LANGUAGE would override LC_ALL
export LC_ALL=C.UTF-8 LANGUAGE=

state=${STATE_DIRECTORY:-/var/lib/nix-local-upgrade}
work=/run/nix-local-upgrade
TZ=UTC printf -v started '%(%FT%TZ)T' -1
read -r this_boot </proc/sys/kernel/random/boot_id
# when, and in which boot, the transaction began: a later run may complete it
begun_at=$started begun_in=$this_boot
phase=''
# what this run has changed so far and must restore on failure: nothing (also while `build` is at work),
# `repository` or `system`
stage=''
candidate='' remote_commit='' toplevel='' revision=''
from_commit='' from_profile='' from_running=''
profile_now='' # the link of the system profile as this run last saw it
checks=''
not_restored=()
unjudged='' # whether an interrupted run may have switched to the running system without validating it
unfinished='' # whether the next run has to try again to restore something
notes=()
only_unreached='' # whether the rollback is only because the host could not be reached
reboots='' # whether this run ends in a reboot

now() { TZ=UTC printf -v REPLY '%(%FT%TZ)T' -1; } # in REPLY
# If the reader of the output is gone, a program started later must not fail because of that.
say() { { echo "nix-local-upgrade: $1"; } 2>/dev/null || exec >/dev/null 2>&1; }

quote() { # quote <text>: as a JSON string in REPLY, with blanks for other control characters
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  readable "${text//[[:cntrl:]]/ }"
  REPLY="\"$REPLY\""
}

listed() { # listed <texts...>: with commas between them, in REPLY
  printf -v REPLY '%s, ' "$@"
  REPLY=${REPLY%, }
}

# keep <file> <text>: writes it to the disk before it gets that name, so that a power cut leaves no half of it. Where
# it cannot, it fails and prints why.
keep() {
  if printf '%s\n' "$2" >"$1.new" && sync "$1.new" && mv -T "$1.new" "$1" && sync "${1%/*}"; then return; fi
  rm -f "$1.new"
  return 1
}

later() { # later <what>: it could not be restored, and the next run tries again
  not_restored+=("$1")
  unfinished=yes
}

number() { # number <profile link>: 12 of /…/system-12-link, or null, in REPLY
  local name=${1##*system-}
  if [[ $name =~ ^([0-9]+)-link$ ]]; then REPLY=${BASH_REMATCH[1]}; else REPLY=null; fi
}

end_state() { # end_state <commit> <toplevel> <profile link>: as JSON in REPLY
  local commit toplevel
  quote "$1"
  commit=$REPLY
  quote "$2"
  toplevel=$REPLY
  number "$3"
  REPLY="{\"commit\":$commit,\"toplevel\":$toplevel,\"generation\":$REPLY}"
}

write_status() { # write_status [<outcome> <reason>]: without them the run is at work
  local outcome=null reason='""' finished=null host from to=null restored='' part
  if [[ $# -gt 0 ]]; then
    outcome="\"$1\""
    quote "$2"
    reason=$REPLY
    now
    finished="\"$REPLY\""
  fi
  quote "$UPGRADE_HOST"
  host=$REPLY
  end_state "$from_commit" "$from_running" "$from_profile"
  from=$REPLY
  if [[ -n $candidate ]]; then
    # a generation has a number only once it is the profile's
    if [[ -n $toplevel && $profile -ef $toplevel ]]; then part=$profile_now; else part=''; fi
    end_state "$candidate" "$toplevel" "$part"
    to=$REPLY
  fi
  for part in "${not_restored[@]}"; do
    quote "$part"
    restored+=${restored:+,}$REPLY
  done
  printf -v REPLY '{"phase":"%s","outcome":%s,"reason":%s,"host":%s,"mode":"%s","from":%s,"to":%s,"notRestored":[%s],"checks":[%s],"started":"%s","finished":%s}' \
    "$phase" "$outcome" "$reason" "$host" "$UPGRADE_MODE" "$from" "$to" "$restored" "$checks" "$started" "$finished"
  put_status "$REPLY"
}

# Without room for a new file, overwrites the old one, which needs none. A status that is wrong is
# worse than none, so one that cannot be replaced is removed.
put_status() { # put_status <text>
  local file=$state/status.json size
  # a rename over a file also brings its data to the disk, and a new status is no reason to wait for it; a rename to a
  # new name does not, and after a power cut the first status would be empty
  if printf '%s\n' "$1" >"$file.new" && { [[ -e $file ]] || sync "$file.new"; } && mv -T "$file.new" "$file"; then return; fi
  rm -f "$file.new"
  size=$(stat --format %s "$file" || true)
  if printf "%-${size:-0}s\n" "$1" 1<>"$file" && [[ $(<"$file") == "$1"* ]]; then return; fi
  echo "<3>nix-local-upgrade: cannot write $file, and removes it"
  rm -f "$file"
  return 1
}

enter() { # enter <phase>
  phase=$1
  say "phase: $phase"
  # only the holder of the lock writes the status
  if [[ $phase != lock ]]; then write_status || true; fi
  if [[ -n ${UPGRADE_PHASE_HOOK:-} ]]; then
    timeout --kill-after=10 300 bash -c "$UPGRADE_PHASE_HOOK $phase" 9>&- || say "The phase hook failed in $phase"
  fi
}

finish() { # finish <outcome> <reason>: the end of a run that holds the lock
  local text=$2 note code=1
  for note in "${notes[@]}"; do text+="; $note"; done
  if [[ ${#not_restored[@]} -gt 0 ]]; then
    listed "${not_restored[@]}"
    text+="; could not put back: $REPLY"
  fi
  look_at_profile
  case $1 in
    upgraded | up-to-date | offline | locked | skipped-known-bad) code=0 ;;
  esac
  # first the status, then the transaction: a run that is cut off in between is recovered once more
  write_status "$1" "$text" || code=1
  if [[ -n $unfinished ]]; then
    code=1
  elif [[ -n $stage ]]; then
    rm -f "$state/transaction.json"
  fi
  say "$1: $text"
  trap - EXIT
  # comes last, as it stops this unit with the others; `systemctl` inherits the ignored signals
  if [[ -n $reboots ]]; then
    trap '' INT TERM
    systemctl --no-block reboot
  fi
  exit "$code"
}

stop() { # stop <outcome> <reason>: rolls back, and ends the run
  local failed_in=$phase
  if [[ -n $stage ]]; then
    enter rollback
    roll_back
    if [[ -n $only_unreached && ${#not_restored[@]} == 0 ]] && ! reachable 9>&-; then
      forget_bad
      notes+=("not held against the revision, as the host cannot be reached with the former system either")
    fi
  fi
  phase=$failed_in
  # the reboot timer leaves a due reboot to a run that is at work
  if [[ $stage != system && -z $unfinished && $1 != locked ]]; then reboot_if_due; fi
  finish "$1" "$2"
}

# The revision is not tried again until the remote moves, unless lack of room or of write access may be the cause.
remember_bad() { # remember_bad <outcome> <reason>
  local before
  if ! look_for_room || ! room 'The store' /nix/store "${store_reserve[@]}" || ! boot_is_writable || ! room_to_boot 1024; then
    notes+=("not held against the revision, as $REPLY")
    return
  fi
  before=$(tail -n 99 "$state/known-bad" 2>/dev/null || true)
  now
  keep "$state/known-bad" "${before:+$before$'\n'}$revision $1 $REPLY ${2//$'\n'/ }" ||
    notes+=("the revision cannot be remembered as bad, and is tried again")
}

forget_bad() { # removes the entry that was added last
  if [[ $(tail -n 1 "$state/known-bad" 2>/dev/null) == "$revision "* ]]; then keep "$state/known-bad" "$(head -n -1 "$state/known-bad")" || true; fi
}

refuse_known_bad() {
  local bad why
  [[ -s $state/known-bad ]] || return 0
  while read -r bad why; do
    if [[ $bad == "$revision" ]]; then
      stop skipped-known-bad "Revision ${revision:0:12} is known to be bad ($why); it is not tried again until the remote moves"
    fi
  done <"$state/known-bad"
}

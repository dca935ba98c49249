# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Upgrades this host: fetch, rebase, build, switch, validate; and rolls back on failure.
# Settings come as UPGRADE_* from the unit's wrapper. A step that takes too long is ended.
#   nix-local-upgrade [--accept COMMIT]   accepts this commit of the remote although its history was rewritten, or
#                                         although its files have conflict markers in them
#   nix-local-upgrade --reboot            reboots now if a reboot is due and the reboot window is open

build_limit=${UPGRADE_BUILD_LIMIT:-14400}
hook_limit=${UPGRADE_HOOK_LIMIT:-600}
accepted=''
deployed_commit='' deployed_remote='' deployed_toplevel='' deployed_failing=''

# items <JSON list of strings>: prints each, with a NUL after it
items() { [[ $1 == '[]' ]] || jq --raw-output0 '.[]' <<<"$1"; }

# read_whole <command...>: leaves what it prints, as parts that end with a NUL, in `found`; fails where the command
# does. The result of `wait` for a <(…) is wrong once in some hundred times on a busy machine.
read_whole() {
  mapfile -d '' -t found < <("$@" && printf '.\0')
  [[ ${#found[@]} != 0 && ${found[-1]} == . ]] || return
  unset 'found[-1]'
}

# Where the file cannot be made, no process holds the lock. Any user who can read the file could lock it.
open_lock() {
  umask 077
  command exec 9>>/run/nix-local-upgrade.lock || return
  umask 022
}

take_lock() {
  local who age
  open_lock || finish failed 'Cannot make /run/nix-local-upgrade.lock'
  if ! flock --nonblock 9; then
    who=$(</run/nix-local-upgrade.lock)
    say "locked: $who is at work"
    if [[ $who =~ \(pid\ ([0-9]+) ]] && age_of "${BASH_REMATCH[1]}"; then age=$REPLY; else age=$((EPOCHSECONDS - $(stat --format %Y /run/nix-local-upgrade.lock || date +%s))); fi
    if [[ $age -lt $lock_limit ]]; then exit 0; fi
    echo "<3>nix-local-upgrade: it has been running for $((age / 60)) minutes, and counts as hung after $((lock_limit / 60)): check it, and end it" >&2
    exit 1
  fi
  echo "nix-local-upgrade (pid $$, since $started)" >/run/nix-local-upgrade.lock || true
  # for errors that nothing else handles
  trap ended_unexpectedly EXIT
  # the next run restores what the transaction says
  trap 'trap - EXIT; write_status failed "Ended by a signal in phase $phase" || true; exit 1' INT TERM
  # The user who started it by hand may be disconnected: a switch may cut the very line that they came by, and only
  # this run can restore that.
  trap '' HUP PIPE
  mkdir -p "$state" "$work" || finish failed "Cannot make $state and $work"
  rm -f "$state"/*.new
  look_how_it_ended "$state/status.json"
  look_around
  if who=$(rebuild_at_work); then another_switch "$who"; fi
}

# shellcheck disable=SC2317,SC2329 # a trap calls it
ended_unexpectedly() {
  trap - EXIT
  set +e
  stop failed "Ended unexpectedly in phase $phase, at \`${BASH_COMMAND%%$'\n'*}\`"
}

# Records the present state, which a failure goes back to.
look_around() {
  look_at_profile
  from_profile=$profile_now
  from_running=$(running)
  # an incomplete record, as after a repair of the disk, counts as none
  if [[ ! -f $state/deployed ]] || ! read -r deployed_commit deployed_remote deployed_toplevel _ deployed_failing <"$state/deployed"; then
    deployed_commit='' deployed_remote='' deployed_toplevel='' deployed_failing=''
  fi
  # the commit of a system that a user has switched to is unknown
  from_commit=$deployed_commit
  if [[ ! $deployed_toplevel -ef $from_running ]]; then from_commit=''; fi
}

# Undoes the changes of an earlier run that was killed or lost its power.
recover() {
  local left
  if [[ $UPGRADE_MODE == local ]]; then
    left=$(drop_stale_locks "$repository/.git" && drop_unwritten "$repository/.git")
  else
    left=$(drop_stale_locks "$state/remote.git")
  fi
  if [[ -n $left ]]; then say "left by an earlier run, and removed: ${left//$'\n'/, }"; fi
  [[ -e $state/transaction.json ]] || return 0
  local line name
  local -A was=()
  # with `=` between fields, `read` would drop a `=` at the end of the last one, such as a hash's
  while IFS= read -r line; do
    name=${line%%=*}
    was[${name:-unnamed}]=${line#*=}
  done < <(
    jq --raw-output 'to_entries[] | "\(.key)=\(.value | tostring | gsub("\n"; " "))"' "$state/transaction.json"
  )
  say "recovering from a run that did not end, begun at ${was[started]:-unknown}"
  if [[ -z ${was[stage]:-} ]]; then
    # this run builds and switches all the same; an interrupted checkout would pass for edits, so it is finished here
    if [[ $UPGRADE_MODE == local ]]; then
      finish_checkout '' || finish failed "Cannot read the repository: $REPLY"
    fi
    unjudged=yes
    notes+=("an earlier run did not end, and its record cannot be read")
    rm -f "$state/transaction.json"
    return
  fi
  # a killed program leaves git's lock behind, whose age proves nothing, as the clock may have been set since
  if [[ $UPGRADE_MODE == local ]]; then
    drop_locks "$repository/.git"
  fi
  stage=${was[stage]} before_op=${was[operation]-} after_op=${was[operationAfter]-}
  candidate=${was[candidate]-} remote_commit=${was[remote]-} toplevel=${was[toplevel]-} revision=${was[revision]-}
  begun_at=${was[started]-} begun_in=${was[bootId]-}
  from_commit=${was[commit]-} from_profile=${was[profile]-} from_running=${was[running]-} boot_before=${was[boot]-}
  failed_before=${was[failedUnits]-}
  failed_before=${failed_before// /$'\n'}
  # written by another version of this program: what it does not record is left alone
  if [[ $stage == system && (-z $from_profile || -z $from_running) ]]; then stage=repository; fi
  if [[ -n $candidate && $candidate == "$deployed_commit" && $toplevel == "$deployed_toplevel" ]]; then
    # the upgrade had been accepted: only its end was cut off
    stage=''
    after_power_cut
  elif [[ $begun_in == "$this_boot" ]]; then
    roll_back
  elif [[ $stage == system ]] && runs "$toplevel"; then
    # the new generation was booted, and came up: only the validation is left
    say "the new generation was booted meanwhile"
    after_power_cut
    conclude
  else
    recover_after_boot
    after_power_cut
  fi
  # do not build upon a half-restored state
  if [[ -n $unfinished ]]; then finish failed "Cannot yet undo the changes of an earlier run"; fi
  if [[ ${#not_restored[@]} -gt 0 ]]; then say "could not put back: ${not_restored[*]}"; fi
  notes+=("recovered from an earlier run that did not end")
  rm -f "$state/transaction.json"
  stage='' before_op='' after_op='' candidate='' remote_commit='' toplevel='' revision='' boot_before='' failed_before=''
  begun_at=$started begun_in=$this_boot
  look_around
}

# A profile keeps damaged paths alive: the interrupted generation has to be removed from it before this call.
after_power_cut() {
  if [[ $begun_in != "$this_boot" && -n $begun_at ]]; then drop_spoilt_paths "$begun_at"; fi
}

# The boot loader and the golden generation decide what boots: profile and entries are set to match.
recover_after_boot() {
  local link latest=0 changed=''
  if [[ $stage == system ]] && ! is_running "$profile"; then
    for link in "$profile"-*-link; do
      number "$link"
      # a link that a user made is no generation
      if [[ $REPLY != null && $REPLY -gt $latest ]] && is_running "$link"; then latest=$REPLY; fi
    done
    # a garbage collection keeps the booted system, but the profile may have lost it
    if [[ $latest != 0 ]]; then
      nix-env --profile "$profile" --switch-generation "$latest" || later profile
    else
      nix-env --profile "$profile" --set "$(readlink --canonicalize /run/booted-system)" || later profile
    fi
    changed=yes
  fi
  if [[ $stage == system ]] && ! is_running "$toplevel" && drop_rejected; then changed=yes; fi
  # with a profile that could not be changed, this would make the rejected generation boot
  if [[ -n $changed && ! $profile -ef $toplevel ]]; then
    timeout --kill-after=30 "$switch_limit" "$profile/bin/switch-to-configuration" boot || later 'boot entries'
  fi
  if [[ $UPGRADE_MODE == local ]]; then restore_repository; fi
}

run_hooks() {
  local hook begun found
  read_whole items "$UPGRADE_HOOKS" || stop failed "The hooks cannot be read"
  for hook in "${found[@]}"; do
    say "hook: $hook"
    since_boot
    begun=$REPLY
    if timeout --kill-after=10 "$hook_limit" bash -c "$hook" </dev/null 9>&-; then continue; fi
    since_boot
    if ((REPLY - begun >= hook_limit)); then stop failed "The hook \`$hook\` did not end within $hook_limit s"; fi
    stop failed "The hook \`$hook\` failed"
  done
}

# Dotfiles that fail to synchronize are no reason to keep an old system.
sync_dotfiles() {
  [[ -n $UPGRADE_DOTFILES ]] || return 0
  timeout 300 systemctl start "$UPGRADE_DOTFILES" 9>&- || notes+=("$UPGRADE_DOTFILES failed")
}

# The golden generation judges the boot of an interrupted upgrade once that upgrade has ended.
golden_goes_on() {
  [[ -e /run/golden-generation.left ]] || return 0
  golden-boot-validation --upgraded 9>&- || notes+=("golden-boot-validation has failed for this boot")
}

# Validates the generation that runs, and keeps it or rolls back.
conclude() {
  local bad=() reason
  enter validate
  if ! validate; then
    listed "${bad[@]}"
    reason=$REPLY
    case $UPGRADE_ON_FAILURE in
      rollback)
        remember_bad validation-failed "$reason"
        if [[ $reason == "$unreachable" ]]; then only_unreached=yes; fi
        stop validation-failed "$reason"
        ;;
      notify)
        echo "<3>nix-local-upgrade: validation failed: $reason" || true
        record_deployed "$reason"
        finish validation-failed "$reason; kept, as the host is set to notify"
        ;;
      ignore) notes+=("ignored: $reason") ;;
    esac
  fi
  # leave alone a system that a user switched to during the validation
  if ! is_running "$toplevel"; then
    rm -f "$state/transaction.json" "$before_root"
    stage=''
    finish locked "The system was switched by somebody else in the meantime"
  fi
  record_deployed
  golden_goes_on
  enter clean
  clean
  end upgraded "Runs ${candidate:0:12}"
}

record_deployed() { # record_deployed [<why its validation failed>]
  now
  # an upgrade that cannot be recorded counts as failed
  keep "$state/deployed" "$candidate $remote_commit $toplevel $REPLY${1:+ ${1//$'\n'/ }}" || stop failed "Cannot write $state/deployed"
  rm -f "$state/transaction.json" "$before_root"
  stage=''
}

# Whether the fetched revision is the one that runs.
is_deployed() {
  [[ $candidate == "$deployed_commit" ]] && runs "$deployed_toplevel" &&
    { [[ $UPGRADE_MODE == remote ]] || descends "$remote_commit" "$candidate"; }
}

end() { # end <outcome> <reason>
  enter "done"
  reboot_if_due
  finish "$1" "$2"
}

# Run by nix-local-upgrade-reboot.timer. The status stays that of the last upgrade.
reboot_only() {
  open_lock
  if ! flock --nonblock 9 || [[ -e $state/transaction.json ]]; then
    say "an upgrade is at work, or was cut off: it will see to the reboot"
    exit 0
  fi
  reboot_if_due
  say "${notes[*]:-no reboot is due}"
  if [[ -n $reboots ]]; then systemctl --no-block reboot; fi
  exit 0
}

main() {
  local only_reboot=''
  while [[ $# -gt 0 ]]; do
    case $1 in
      --accept)
        [[ -n ${2-} ]] || { echo "nix-local-upgrade: --accept needs a commit" >&2; exit 2; }
        accepted=$2
        shift 2
        ;;
      --reboot) only_reboot=yes; shift ;;
      *) echo "nix-local-upgrade: Unknown argument \`$1\`" >&2; exit 2 ;;
    esac
  done
  [[ $EUID == 0 ]] || { echo "nix-local-upgrade: Only root may upgrade this host" >&2; exit 1; }
  # a background program that reads from a terminal would be stopped until its time limit
  exec </dev/null
  if [[ -n $only_reboot ]]; then reboot_only; fi
  if [[ $UPGRADE_MODE == local ]]; then know_user; fi
  enter lock
  take_lock
  enter recover
  recover
  golden_goes_on
  enter hooks
  run_hooks
  enter dotfiles
  sync_dotfiles
  enter fetch
  if [[ $UPGRADE_MODE == remote ]]; then fetch_remote; else fetch; fi
  if is_deployed; then
    toplevel=$deployed_toplevel
    if [[ -n $deployed_failing ]]; then notes+=("its validation failed: $deployed_failing"); fi
    end up-to-date "Runs ${candidate:0:12}"
  fi
  refuse_known_bad
  if [[ $UPGRADE_MODE == local ]]; then measure_checkout; fi
  look_for_room || stop no-space "$REPLY"
  enter rebase
  if [[ $UPGRADE_MODE == local ]]; then
    rebase
    repo_git update-ref refs/nix-local-upgrade/candidate "$candidate" || stop failed "Cannot write to the repository"
    flake="git+file://$(url_path "$repository")?ref=refs/nix-local-upgrade/candidate&rev=$candidate"
    if [[ $UPGRADE_FLAKE_DIRECTORY != . ]]; then flake+="&dir=$(url_path "$UPGRADE_FLAKE_DIRECTORY")"; fi
    builder=(as_user "$build_limit")
  else
    begin build
    # a flake without its history cannot be searched for conflicts
    if commit_git rev-parse --quiet --verify "$candidate" >/dev/null; then refuse_conflicts; fi
  fi
  if [[ $UPGRADE_BUILD_FIRST == true ]]; then
    enter build
    build
    enter preflight
    preflight
  fi
  enter switch
  if [[ $UPGRADE_BUILD_FIRST != true ]]; then build; fi
  switch
  conclude
}

main "$@"

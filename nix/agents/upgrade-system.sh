# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Builds a generation, switches to it, validates it, and rolls back.

profile=/nix/var/nix/profiles/system
switch_lock=/run/nixos/switch-to-configuration.lock
golden=/nix/var/nix/gcroots/golden-generation
# keeps the former system until the new one is accepted, as a garbage collection may run meanwhile
before_root=/nix/var/nix/gcroots/nix-local-upgrade
# KiB and inodes that a build needs at least, for its output and for Nix's database
store_reserve=(262144 4096)
# seconds after which the holder of a lock counts as hung
lock_limit=${UPGRADE_LOCK_LIMIT:-21600}
switch_limit=${UPGRADE_SWITCH_LIMIT:-900}

running() { readlink --canonicalize /run/current-system || true; }
# Whether this toplevel, or one of its specialisations, runs.
is_running() { # is_running <toplevel, or a link to it>
  local each
  [[ -n $1 ]] || return
  for each in "$1" "$1"/specialisation/*; do
    if [[ /run/current-system -ef $each ]]; then return; fi
  done
  return 1
}
runs() { [[ $profile -ef $1 ]] && is_running "$1"; } # runs <toplevel>: it runs, and is the system profile's
look_at_profile() { profile_now=$(readlink "$profile" || true); }

# Whether a file system has that much free; what is missing is in REPLY.
room() { # room <name> <path> <KiB> <inodes>
  local free inodes all
  if ! { read -r _ && read -r free inodes all; } < <(df --output=avail,iavail,itotal --block-size=1024 "$2"); then
    REPLY="cannot tell how much $1 has free"
    return 1
  fi
  REPLY=''
  if [[ $free -lt $3 ]]; then
    REPLY="$1 has $((free / 1024)) MiB free and $((($3 + 1023) / 1024)) MiB are needed"
  # vfat and btrfs have no fixed number of inodes that could run out
  elif [[ $all =~ ^[1-9] && $inodes -lt $4 ]]; then
    REPLY="$1 has $inodes inodes free and $4 are needed"
  fi
  [[ -z $REPLY ]]
}

# Whether there is room for what any upgrade writes; what is missing is in REPLY.
look_for_room() {
  room "$state" "$state" 1024 16 && room "$work" "$work" 1024 16 && room "${profile%/*}" "${profile%/*}" 1024 32 &&
    { [[ $UPGRADE_MODE != local ]] || room "$repository" "$repository" "$((16384 + checkout_kib))" "$((512 + checkout_files))"; }
}
# Whether boot entries can be changed; why not is in REPLY.
boot_is_writable() {
  REPLY=''
  if [[ ${UPGRADE_BOOT_MOUNTED:-false} == true ]] && ! mountpoint --quiet "$UPGRADE_BOOT"; then
    REPLY="$UPGRADE_BOOT is not mounted, so no new generation can be made to boot: \`mount $UPGRADE_BOOT\`, and find out why it was not mounted"
  elif [[ -d $UPGRADE_BOOT && ! -w $UPGRADE_BOOT ]]; then
    REPLY="$UPGRADE_BOOT is mounted read-only, so no new generation can be made to boot: \`mount -o remount,rw $UPGRADE_BOOT\`, and find out why it was read-only"
  fi
  [[ -z $REPLY ]]
}
# Whether there is room for boot files; a container has no /boot, and needs none.
room_to_boot() { # room_to_boot <KiB>
  [[ ! -d $UPGRADE_BOOT ]] || room "$UPGRADE_BOOT" "$UPGRADE_BOOT" "$1" 8
}
efi_variable() { # efi_variable <name>: a variable of the boot loader, in REPLY; empty where there is none
  # four bytes of attributes, of which only the first is not zero, then UTF-16. Bash drops zeros with a warning
  { REPLY=$(<"/sys/firmware/efi/efivars/$1-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"); } 2>/dev/null || REPLY=''
  REPLY=${REPLY:1}
}
# failed_units [<units>]: units that have failed, or that wait for a restart and did not before the switch, except
# the given ones; one a line, in REPLY. Fails where systemd cannot be asked
failed_units() {
  local unit units=() listed active
  REPLY=''
  listed=$(ask_systemd list-units --all --plain --no-legend --no-pager --state=failed,auto-restart,auto-restart-queued) || return
  while read -r unit _ active _; do
    if [[ $active == activating ]] && was_restless "$unit" && waits_as_before "$unit"; then continue; fi
    if [[ -n $unit && $'\n'${1:-}$'\n' != *$'\n'"$unit"$'\n'* ]]; then units+=("$unit"); fi
  done <<<"$listed"
  local IFS=$'\n'
  REPLY="${units[*]}"
}

# Finds a process that switches without this agent, such as `nixos-rebuild`.
rebuild_at_work() { # prints which one
  local pid
  [[ -e $switch_lock ]] || return 1
  ! flock --nonblock 8 8<"$switch_lock" || return 1
  pid=$(find /proc/[0-9]*/fd -maxdepth 1 -lname "$switch_lock" 2>/dev/null | cut -d / -f 3 | sort --numeric-sort | head -n 1)
  if [[ -n $pid ]]; then echo "pid $pid, $(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-120)"; else echo "unknown"; fi
}

# Ends this run in favour of another process. Counts as a failure once that process has been at work for so long that
# it must be hung, because otherwise no one would ever notice.
give_way() { # give_way <message> <pid of the other process, if known>
  local left=''
  if [[ -n $2 ]] && age_of "$2" && [[ $REPLY -ge $lock_limit ]]; then
    left="; it has been running for $((REPLY / 60)) minutes, and counts as hung after $((lock_limit / 60)): check it, and end it"
    stop failed "$1$left"
  fi
  stop locked "$1"
}
age_of() { # age_of <pid>: seconds since it was started, in REPLY
  local fields up
  { fields=$(<"/proc/$1/stat"); } 2>/dev/null || return
  read -r -a fields <<<"${fields##*) }"
  IFS=. read -r up _ </proc/uptime
  # the 22nd field of all, in hundredths of a second
  REPLY=$((up - fields[19] / 100))
}
another_switch() { # another_switch <who>
  local pid=''
  if [[ $1 =~ ^pid\ ([0-9]+) ]]; then pid=${BASH_REMATCH[1]}; fi
  give_way "Another switch is at work: $1" "$pid"
}

# Records the present state before it is changed.
begin() { # begin <stage>
  local stage_before=$stage trouble
  stage=$1
  if [[ -z ${boot_before:-} ]]; then
    efi_variable LoaderEntryDefault
    boot_before="$REPLY "
    efi_variable LoaderEntryOneShot
    boot_before+=$REPLY
  fi
  if ! trouble=$(write_transaction 2>&1); then
    stage=$stage_before
    stop failed "Cannot record the state before the upgrade: ${trouble##*: }"
  fi
}

write_transaction() {
  local text quoted=()
  for text in "$from_commit" "$boot_before" "$candidate" "${failed_before:-}"; do
    quote "$text"
    quoted+=("$REPLY")
  done
  printf -v text '{"stage":"%s","bootId":"%s","started":"%s","operation":"%s","operationAfter":"%s","commit":%s,"profile":"%s","running":"%s","boot":%s,"candidate":%s,"remote":"%s","toplevel":"%s","revision":"%s","failedUnits":%s}' \
    "$stage" "$begun_in" "$begun_at" "$before_op" "$after_op" "${quoted[0]}" "$from_profile" "$from_running" \
    "${quoted[1]}" "${quoted[2]}" "$remote_commit" "$toplevel" "$revision" "${quoted[3]}"
  keep "$state/transaction.json" "$text"
}

ask_build() {
  # the error's place in the commit may be deep in the trace
  { "${builder[@]}" nix --extra-experimental-features 'nix-command flakes' build --show-trace --no-link --print-out-paths "$flake#$UPGRADE_ATTRIBUTE" \
    2>&1 >"$work/toplevel"; } | { tee "$work/said" >&2 || true; }
}

# Nix does not sync its caches to the disk, and one that a power cut damaged fails every evaluation after it.
drop_spoilt_cache() {
  local spoilt
  spoilt=$(sed -n -E "s/.*(is not a database|disk image is malformed).*\(in '([^']*\/(fetcher|eval|binary)-cache-[^']*\.sqlite)'\).*/\2/p" "$work/said" | tail -n 1)
  [[ -n $spoilt ]] || return 1
  say "spoilt, and made anew: $spoilt"
  "${builder[@]}" rm -f "$spoilt" "$spoilt-journal" "$spoilt-wal" "$spoilt-shm"
}

# Nix syncs what it fetches to the disk, but not what it builds (with `fsync-store-paths` or without): a power cut
# empties files in a path that is registered as complete. Such a path built again is the same.
drop_spoilt_paths() { # drop_spoilt_paths <time: checks paths made since>
  local path
  local -a made=() valid=() spoilt=() kept=() all=()
  local -A invalid=()
  # this gcroot would keep the damaged paths from being deleted
  rm -f "$state/candidate"
  mapfile -t made < <(find /nix/store -mindepth 1 -maxdepth 1 -newerct "$1" ! -name '.*' ! -name '*.lock' ! -name '*.chroot')
  if [[ ${#made[@]} == 0 ]]; then return; fi
  while read -r path; do invalid[$path]=1; done < <(nix-store --check-validity --print-invalid "${made[@]}")
  for path in "${made[@]}"; do
    if [[ -z ${invalid[$path]-} ]]; then valid+=("$path"); fi
  done
  # all at once first; one by one only to find the damaged ones
  if timeout 1800 nix-store --verify-path "${valid[@]}" 2>/dev/null; then return; fi
  for path in "${valid[@]}"; do
    timeout 600 nix-store --verify-path "$path" 2>/dev/null || spoilt+=("$path")
  done
  if [[ ${#spoilt[@]} == 0 ]]; then return; fi
  say "spoilt by a power cut, and made anew: ${spoilt[*]}"
  # delete what refers to them as well, which Nix does not do by itself; a path that runs, boots or is in a profile
  # stays, and must not keep the others
  for path in "${spoilt[@]}"; do
    mapfile -t all < <(nix-store --query --referrers-closure "$path" 2>/dev/null)
    nix-store --delete "${all[@]}" >/dev/null 2>&1 || [[ ! -e $path ]] || kept+=("$path")
  done
  [[ ${#kept[@]} == 0 ]] || notes+=("spoilt by a power cut, but in use, so not made anew: ${kept[*]}")
}

build() {
  local code=0 from killed
  since_boot
  from=$REPLY
  killed_for_memory
  killed=$REPLY
  room 'The store' /nix/store "${store_reserve[@]}" || stop no-space "$REPLY"
  note_unfetched
  ask_build || code=$?
  if [[ $code != 0 ]] && drop_spoilt_cache; then
    code=0
    ask_build || code=$?
  fi
  if [[ $code == 0 ]]; then
    toplevel=$(<"$work/toplevel")
    toplevel=${toplevel##*$'\n'}
    # from here on no garbage collection removes it
    nix-store --realise "$toplevel" --add-root "$state/candidate" >/dev/null 2>"$work/said" ||
      stop failed "Cannot add a GC root for the built system: $(last_words "$work/said")"
    write_status || true
    judge_built
    return
  fi
  since_boot
  build_failed "$code" "$((REPLY - from))" "$killed"
}

# The built system may be the one that runs already, or one that failed its last trial boot.
judge_built() {
  if [[ -z $unjudged ]] && runs "$toplevel"; then
    record_deployed
    end up-to-date "${candidate:0:12} changes nothing of this host"
  fi
  if [[ -s /var/lib/golden-generation/failed ]] && grep -q "^$toplevel " /var/lib/golden-generation/failed; then
    remember_bad skipped-known-bad "It has failed its trial boot"
    stop skipped-known-bad "$toplevel has failed its trial boot"
  fi
}

# Whether the boot loader's partition has room for kernel and initrd, before anything refers to them, and everything
# else has room for the switch, and for the rollback.
preflight() {
  local wanted=() there=() file own need=1024 size
  own=$(readlink --canonicalize-existing "$toplevel"/{kernel,initrd} || true)
  # a specialisation has a boot entry, too, and may have another kernel
  mapfile -t wanted < <(readlink --canonicalize-existing "$toplevel"/{,specialisation/*/}{kernel,initrd} | sort --unique)
  mapfile -t there < <(readlink --canonicalize "$profile"-*-link/{,specialisation/*/}{kernel,initrd})
  for file in "${wanted[@]}"; do
    if [[ " ${there[*]} " == *" $file "* ]]; then continue; fi
    size=$(($(stat --format %s "$file" || echo 0) / 1024 + 4))
    need=$((need + size))
    # after a good boot, golden makes its own copies of these before it removes those that it has
    if [[ -e /var/lib/golden-generation/golden.json && $'\n'$own$'\n' == *$'\n'"$file"$'\n'* ]]; then need=$((need + size)); fi
  done
  room_to_boot "$need" || stop no-space "$REPLY"
  look_for_room || stop no-space "$REPLY"
}

switch() {
  local code=0 who
  if who=$(rebuild_at_work); then another_switch "$who"; fi
  ln -sfn "$from_running" "$before_root" 2>"$work/said" || stop failed "Cannot add a GC root for the running system: $(last_words "$work/said")"
  look_at_profile
  [[ $profile_now == "$from_profile" && $(running) == "$from_running" ]] ||
    stop locked "The system was switched by somebody else in the meantime"
  boot_is_writable || stop failed "$REPLY"
  # a switch that could not be judged afterwards is not begun; the commit is not to blame
  { failed_units && failed_before=$REPLY && remember_services; } ||
    stop failed "systemd does not report the state of the services, so a switch could not be judged"
  begin system
  # everything that was built must be on the disk before a boot needs it
  sync --file-system /nix/store
  nix-env --profile "$profile" --set "$toplevel" 2>"$work/said" ||
    stop failed "Cannot set the system profile: $(last_words "$work/said")"
  look_at_profile
  write_status || true
  switch_to "$toplevel" switch || code=$?
  # 4: it runs, but units failed, which validation looks at
  if [[ $code != 0 && $code != 4 ]]; then switch_failed "$code"; fi
  if [[ ! /run/current-system -ef $toplevel ]]; then
    remember_bad switch-failed "switch-to-configuration succeeded, but $(running) still runs"
    stop switch-failed "switch-to-configuration succeeded, but $(running) still runs"
  fi
}

switch_to() { # switch_to <toplevel> <action>: its output is kept in `said`, too
  local code=0 out printer
  exec {out}> >(exec tee "$work/said" >&2 9>&-)
  printer=$!
  timeout --kill-after=30 "$switch_limit" "$1/bin/switch-to-configuration" "$2" >&"$out" 2>&1 {out}>&- 9>&- || code=$?
  exec {out}>&-
  # a process that the switch started may hold it open
  timeout 3 tail --pid="$printer" --sleep-interval=0.1 --follow /dev/null || true
  return "$code"
}

switch_failed() { # switch_failed <exit code>
  local reason="switch-to-configuration exited with $1" said who
  said=$(last_words "$work/said")
  reason+=${said:+: $said}
  # another switch won the race by a moment, and only the profile has been changed
  if [[ $1 == 11 || $said == *'Could not acquire lock'* ]]; then
    restore_profile
    stage=repository
    if who=$(rebuild_at_work); then another_switch "$who"; fi
    stop locked "Another switch was at work"
  fi
  if [[ $1 == 124 || $1 == 137 ]]; then
    reason="switch-to-configuration did not end within $switch_limit s${said:+: $said}"
  elif grep -q -i -E 'no space left on device|disk quota exceeded' "$work/said"; then
    stop no-space "$reason"
  elif grep -q -E "is not a mounted partition|golden-arm-trial: .*(cannot be (set|written)|not whole|could not be booted|differs from|is missing or empty|another command is at it)" "$work/said" ||
    grep -q -i -E 'input/output error|structure needs cleaning|cannot allocate memory|failed to connect to (system )?(bus|scope)' "$work/said" ||
    { [[ $1 == 1 ]] && grep -q -i 'read-only file system' "$work/said"; }; then
    # a fault of the machine; with 1, nothing was changed either
    stop failed "$reason"
  elif grep -q "check 'switchInhibitors' failed" "$work/said"; then
    # not held against the commit: after that boot, the next run finds that it runs
    reason=$(sed -n '/ -> /p' "$work/said" | paste -s -d ,)
    stop failed "NixOS requires a reboot for this change (${reason//,/, }): \`sudo nix-env --profile $profile --set $toplevel && sudo $toplevel/bin/switch-to-configuration boot\`, then reboot"
  fi
  remember_bad switch-failed "$reason"
  stop switch-failed "$reason"
}

# last_words <file>: prints the last lines of a program's output that report a failure, or else the last line
last_words() {
  local lines
  lines=$(sed -E 's/\x1b\[[0-9;]*[A-Za-z]//g; s/^[[:space:]]+//; s/[[:space:]]+$//' "$1" |
    grep -v -E '^$|^(stopping|restarting|reloading|starting|NOT restarting|the following new) .*units|^activating the configuration|^setting up /etc' || true)
  { grep -i -E "error|fail|cannot|could not|can't|unable|denied|refus|no such|not found|invalid|read-only|no space|not a mounted" <<<"$lines" || tail -n 1 <<<"$lines"; } |
    tail -n 2 | paste -s -d '|' | sed 's/|/; /g'
}

# Whether systemd has jobs left, apart from this upgrade itself.
jobs_left() {
  local job
  while read -r job; do
    if [[ $job =~ \ (waiting|running)$ && $job != *' nix-local-upgrade.service '* ]]; then return 0; fi
  done < <(systemctl list-jobs --no-legend --no-pager 2>/dev/null)
  return 1
}

# Gives what was started time to come up, or to fail. Where nothing was started, a moment is enough.
settle() {
  local end pause=$UPGRADE_SETTLE unit
  since_boot
  end=$((REPLY + 30))
  while [[ $REPLY -lt $end ]] && jobs_left; do
    sleep 1
    since_boot
  done
  { look_at_services && failed_units "$failed_before"; } || silent=yes
  if [[ -z $REPLY && -z $silent ]]; then
    if [[ $pause -gt 3 ]]; then
      pause=3
      for unit in "${!services[@]}"; do
        if started_since "$unit"; then pause=$UPGRADE_SETTLE; fi
      done
    fi
    sleep "$pause"
  fi
}
add_check() { # add_check <command> <result>
  quote "$1"
  checks+="${checks:+,}{\"command\":$REPLY,\"result\":\"$2\"}"
}

# Looks for units that have failed since the switch, and runs each check; problems are left in `bad`.
validate() {
  local unit check end found silent=''
  bad=()
  settle
  failed_units "$failed_before" || silent=yes
  while read -r unit; do
    [[ -z $unit ]] || bad+=("$unit has failed")
  done <<<"$REPLY"
  if [[ -z $silent ]] && restless; then
    while IFS= read -r unit; do
      [[ -z $unit ]] || bad+=("$unit")
    done <<<"$REPLY"
  else
    bad+=("systemd does not report the state of the services")
  fi
  since_boot
  end=$((REPLY + UPGRADE_PATIENCE))
  read_whole items "$UPGRADE_CHECKS" || bad+=("the checks cannot be read")
  for check in "${found[@]}"; do
    say "check: $check"
    until timeout --kill-after=10 60 bash -c "$check" </dev/null 9>&-; do
      since_boot
      if [[ $REPLY -ge $end ]]; then
        bad+=("\`$check\` failed")
        add_check "$check" failed
        continue 2
      fi
      sleep 1
    done
    add_check "$check" ok
  done
  reachable 9>&- || bad+=("$unreachable")
  while IFS= read -r -d '' check; do add_check "$check" n/a; done < <(items "$UPGRADE_CHECKS_NA")
  [[ ${#bad[@]} == 0 ]]
}

roll_back() {
  if [[ $stage == system ]]; then
    restore_profile
    restore_running
    restore_boot
  fi
  if [[ $UPGRADE_MODE == local ]]; then restore_repository; fi
}

restore_profile() {
  local before now target
  number "$from_profile"
  before=$REPLY
  now=$(readlink "$profile" || true)
  number "$now"
  # a profile that was linked by hand, by a full path or to no generation, becomes a numbered generation
  if [[ $now != "$from_profile" && ($before == null || $REPLY != "$before") ]]; then
    target=$(readlink --canonicalize "$profile")
    if [[ $target == "$toplevel" && $before == null ]]; then
      nix-env --profile "$profile" --set "$from_running" || { later profile; return; }
    elif [[ $target == "$toplevel" ]]; then
      # `nix-collect-garbage -d` removes the generation's link, but keeps the running system
      if [[ ! -e $profile-$before-link ]]; then ln -sfn "$from_running" "$profile-$before-link" || true; fi
      nix-env --profile "$profile" --switch-generation "$before" || { later profile; return; }
    elif [[ $target != "$from_running" || $before != null ]]; then
      not_restored+=("profile (set by somebody else since)")
      return
    fi
  fi
  drop_rejected || true
}

# Drops the rejected system from the profile, so that nothing boots it. Fails where the profile does not have it.
drop_rejected() {
  local before link dropped=''
  number "$from_profile"
  before=$REPLY
  for link in "$profile"-*-link; do
    number "$link"
    if [[ $REPLY == null || $REPLY -le ${before/null/0} ]]; then continue; fi
    if [[ $(readlink --canonicalize "$link") != "$toplevel" ]]; then continue; fi
    dropped=yes
    nix-env --profile "$profile" --delete-generations "$REPLY" || later 'profile (the rejected generation is in it)'
  done
  [[ -n $dropped ]]
}

restore_running() {
  local default code=0 unit
  if [[ ! /run/current-system -ef $toplevel && $(running) != "$from_running" ]]; then
    not_restored+=("running system (switched by somebody else since)")
    return
  fi
  default=$(readlink --canonicalize "$profile")
  if [[ $default == "$from_running" ]]; then
    switch_to "$default" switch || code=$?
    # it writes boot entries first; where these cannot be written, the running system is restored without them
    if [[ $(running) != "$from_running" ]]; then
      later 'boot entries'
      code=0
      switch_to "$from_running" test || code=$?
    fi
  else
    switch_to "$default" boot || later 'boot entries'
    switch_to "$from_running" test || code=$?
  fi
  if [[ $(running) != "$from_running" ]]; then
    later "running system (switch-to-configuration exited with $code: $(last_words "$work/said"))"
  elif [[ $code == 1 ]]; then
    # it failed before it came to the units
    later 'boot entries'
  elif [[ $code != 0 ]]; then
    failed_units "$failed_before" || true
    while read -r unit; do
      [[ -z $unit ]] || not_restored+=("$unit")
    done <<<"$REPLY"
  fi
}

# Restores the boot loader's own variables, where nothing else does: with a golden generation they
# follow from the switch back.
restore_boot() {
  if [[ -e /var/lib/golden-generation/golden.json ]]; then return; fi
  local default=${boot_before%% *} oneshot=${boot_before#* }
  efi_variable LoaderEntryDefault
  # golden's entry was removed with the golden generation
  if [[ $default == golden-* ]]; then
    not_restored+=("golden generation")
  elif [[ $REPLY != "$default" ]]; then
    bootctl set-default "$default" || not_restored+=("boot default")
  fi
  efi_variable LoaderEntryOneShot
  if [[ $REPLY != "$oneshot" ]]; then
    bootctl set-oneshot "$oneshot" || not_restored+=("trial boot")
  fi
}

# Removes generations beyond the last ones and older than the limit of days, but never the golden, the running, the
# booted one or the profile's own.
clean() {
  local line id keep_from protected link target removed=() links=("$profile"-*-link)
  # the usual case: there is nothing to remove
  if [[ ${#links[@]} -le $UPGRADE_KEEP_GENERATIONS ]]; then return; fi
  keep_from=$(date --date "-$UPGRADE_KEEP_DAYS days" +%s)
  protected=" $(running) $(readlink --canonicalize /run/booted-system) $(readlink --canonicalize "$golden") $(readlink --canonicalize "$profile") "
  while read -r id; do
    link="$profile-$id-link"
    target=$(readlink --canonicalize "$link")
    if [[ $protected != *" $target "* && $(stat --format %Y "$link") -lt $keep_from ]]; then removed+=("$id"); fi
  done < <(find "${profile%/*}" -maxdepth 1 -name 'system-*-link' | sed -n -E 's#.*/system-([0-9]+)-link$#\1#p' | sort --numeric-sort |
    head -n "-$UPGRADE_KEEP_GENERATIONS")
  if [[ ${#removed[@]} == 0 ]]; then return; fi
  say "removing generations ${removed[*]}"
  { nix-env --profile "$profile" --delete-generations "${removed[@]}" &&
    timeout 1800 nix-collect-garbage >/dev/null &&
    # their boot entries and kernels go too
    timeout 300 "$profile/bin/switch-to-configuration" boot; } || notes+=("the clean-up of old generations has failed")
}

# A new kernel, new modules or a new initrd take effect only by a reboot.
reboot_if_due() {
  local hint now lower upper who target was=()
  if [[ /run/booted-system -ef $profile ]]; then return; fi
  if [[ $(readlink --canonicalize-existing /run/booted-system/{kernel,initrd,kernel-modules}) == \
    $(readlink --canonicalize-existing "$profile"/{kernel,initrd,kernel-modules}) ]]; then return; fi
  if [[ $UPGRADE_ALLOW_REBOOT != true ]]; then
    notes+=("a reboot is due, but not allowed (\`allowReboot\` is off)")
    return
  fi
  # golden handles a boot that did not come up; without it, each reboot would end as the last one did, for ever
  target=$(readlink --canonicalize "$profile")
  efi_variable LoaderEntryDefault
  if [[ -e $state/rebooted ]]; then mapfile -t was <"$state/rebooted"; fi
  if [[ ${was[0]-} != "$this_boot" && ${was[1]-} == "$target" && ${was[2]-} == "$REPLY" &&
    ! -e /var/lib/golden-generation/golden.json ]]; then
    hint="see \`bootctl list\`"
    [[ -z $REPLY ]] || hint="the boot default is $REPLY, and \`sudo bootctl set-default ''\` leaves it to NixOS"
    notes+=("a reboot is due, but the last reboot for it started another generation: $hint")
    return
  fi
  if [[ -n $UPGRADE_REBOOT_WINDOW ]]; then
    now=$(date +%H:%M) lower=${UPGRADE_REBOOT_WINDOW%-*} upper=${UPGRADE_REBOOT_WINDOW#*-}
    if ! in_window "$now" "$lower" "$upper"; then
      notes+=("a reboot is due, and waits for $UPGRADE_REBOOT_WINDOW (nix-local-upgrade-reboot.timer)")
      return
    fi
  fi
  if who=$(rebuild_at_work); then
    notes+=("a reboot is due, and waits for a rebuild that is running ($who)")
    return
  fi
  if ! keep "$state/rebooted" "$this_boot"$'\n'"$target"$'\n'"$REPLY"; then
    notes+=("a reboot is due, and $state/rebooted cannot be written")
    return
  fi
  notes+=("rebooting")
  reboots=1
}

in_window() { # in_window <HH:MM> <lower> <upper>; a window that ends before it begins spans midnight
  if [[ $2 < $3 ]]; then [[ ! $1 < $2 && $1 < $3 ]]; else [[ ! $1 < $2 || $1 < $3 ]]; fi
}

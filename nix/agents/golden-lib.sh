# shellcheck shell=bash
# Shared by the commands of the golden generation: each command is this file followed by its own.
#
# Golden is the generation that is known to boot. It is the boot default, by the EFI variable
# LoaderEntryDefault, which no installer of boot entries changes. Any other generation that becomes the system
# profile is on trial: the next boot starts it once, by LoaderEntryOneShot, which the boot loader clears
# as it reads it. However that boot ends, the one after it starts golden.
#
# State; each file is replaced as a whole:
#   golden.json  toplevel, entry (its id) and time of the golden generation
#   trial.json   the generation on trial: toplevel, entry, time, the boot that armed it, `tries` (how often before);
#                `counted`, the file of its entry where the boot loader counts boots in the name; and `state`:
#                  arming   its one-shot may not be set yet
#                  armed    a later boot concludes that it was tried, unless `not_started` finds otherwise
#                  waits    a user has set another entry to boot once before it
#                  cleared  its one-shot was gone when the machine went down
#                  failed   its own boot has recorded the reason
#   failed       generations that failed their trial, one a line: <toplevel> <time> <reason>
#   given-up     the toplevel that was golden until a rebuild turned this feature off
# Golden has its own boot entry, kernel and initrd on the ESP: an installer removes those of
# collected generations, and a gcroot keeps only a closure.
#
# GOLDEN_BOOT is the partition with the boot entries, GOLDEN_ESP the EFI system partition: usually the same one.
# Code uses bash itself where it can: in an emulated guest each program start takes a tenth of a second.

state=/var/lib/golden-generation
profile=/nix/var/nix/profiles/system
gcroot=/nix/var/nix/gcroots/golden-generation
entries=$GOLDEN_BOOT/loader/entries
copies=$GOLDEN_BOOT/EFI/golden
# marks a good boot of a generation whose upgrade was cut off: it is pinned only after the upgrade's own checks
left=/run/golden-generation.left
# A panic or a hang of golden halts the machine: there is nothing left to fall back to, and a reboot loop
# would wipe the console that says why. Once golden's boot is validated, `guard` turns reboots on panic and the
# watchdog on, because a reboot then leads to a system that works.
quiet_options='panic=0 systemd.watchdog_sec=0'

complain() { echo "${0##*/}: $1" >&2; }
fail() {
  complain "$1"
  exit 1
}
need_root() { # need_root <what cannot be done>
  [[ $EUID -eq 0 ]] || fail "Cannot $1: only root may (try sudo)"
}
# Never held while switch-to-configuration runs: that calls golden-arm-trial
locked() {
  # any user who can read the file could lock it
  umask 077
  exec 9>/run/golden-generation.lock
  umask 022
  flock --wait 120 9 || fail 'Cannot change the golden generation: another command is at it for 2 minutes'
  mend_state
}
unlocked() { exec 9>&-; }

field() { # field <file> <key>: the value, empty when there is none
  local text
  [[ -e $state/$1 ]] || return 0
  text=$(<"$state/$1")
  if [[ $text =~ \"$2\":\"([^\"]*)\" ]]; then echo "${BASH_REMATCH[1]}"; fi
}
write_state() { # write_state <file> <text>; where it cannot, it fails and leaves the old file
  if mkdir -p "$state" && printf '%s\n' "$2" >"$state/$1.new" && sync "$state/$1.new" &&
    mv -T "$state/$1.new" "$state/$1" && sync "$state"; then return; fi
  rm -f "$state/$1.new"
  complain "Cannot write $state/$1"
  return 1
}
now() { TZ=UTC printf '%(%Y-%m-%dT%H:%M:%SZ)T' -1; }
this_boot() { echo "$(</proc/sys/kernel/random/boot_id)"; }
booted_system() { readlink -f /run/booted-system || true; }

# A damaged disk, or a backup, may leave an incomplete record, and code that trusts it would take golden's own files
# for another generation's. Golden is also known by its gcroot; a system profile that is not golden is on trial.
mend_state() {
  local text toplevel entry
  if [[ -e $state/golden.json ]]; then
    text=$(<"$state/golden.json")
    if [[ ! $text =~ ^\{\"toplevel\":\"/nix/store/[^\"]+\",\"entry\":\"golden-[^\"]+\.conf\".*\}$ ]]; then
      complain "$state/golden.json is damaged, and is made anew"
      toplevel=$(readlink "$gcroot" || true)
      entry=${toplevel#/nix/store/}
      if [[ -e $toplevel/init ]]; then
        write_state golden.json "{\"toplevel\":\"$toplevel\",\"entry\":\"golden-${entry%%-*}.conf\",\"pinnedAt\":\"$(now)\"}"
      else
        rm -f "$state/golden.json"
      fi
    fi
  fi
  if [[ -e $state/trial.json ]]; then
    text=$(<"$state/trial.json")
    if [[ ! $text =~ ^\{\"toplevel\":\"/nix/store/[^\"]+\",.*\"state\":\"[a-z]+\".*\}$ ]]; then
      complain "$state/trial.json is damaged, and is made anew"
      toplevel=$(readlink -f "$profile")
      if [[ $toplevel != "$(field golden.json toplevel)" ]] && entry=$(entry_of "$toplevel"); then
        write_state trial.json "{\"toplevel\":\"$toplevel\",\"entry\":\"$(entry_id "$entry")\",\"boot\":\"unknown\",\"state\":\"arming\"}" || true
      else
        rm -f "$state/trial.json"
      fi
    fi
  fi
}

efi_variable() { # efi_variable <name>: its text, empty when it is not set
  local file=/sys/firmware/efi/efivars/$1-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
  # 4 bytes of attributes, then ASCII text as UTF-16
  [[ ! -e $file ]] || tr -d '\0-\7' <"$file"
}

# The boot entry of a generation, found by content, as installers name it differently. Entries of installers come
# first: a copy that a user made, such as one for a rescue mode, boots the same generation
entry_of() { # entry_of <toplevel>: the path; fails when there is none
  local entry
  for entry in "$entries"/nixos-*.conf "$entries"/*.conf; do
    if [[ ${entry##*/} != golden-* && -e $entry && $(<"$entry")' ' == *" init=$1/init"[[:space:]]* ]]; then
      echo "$entry"
      return 0
    fi
  done
  return 1
}
# The files that an entry loads, as `<key> <path on its partition>`; its last line may lack a newline
loads() { # loads <entry>
  local key file
  while read -r key file || [[ -n $key ]]; do
    case $key in linux | initrd | devicetree) echo "$key $file" ;; esac
  done <"$1"
}
# The boot loader's id of an entry: its file name without what boot counting adds
entry_id() {
  local id=${1##*/}
  if [[ $id =~ ^(.+)\+[0-9]+(-[0-9]+)?\.conf$ ]]; then id=${BASH_REMATCH[1]}.conf; fi
  echo "${id,,}"
}

# Prints why the boot loader could not start a generation from the files on the ESP; nothing when it could. A
# kernel that it cannot load would end in the firmware, where no panic or watchdog helps.
unloadable() { # unloadable <toplevel> <entry>
  local key file kernel='' initrd=''
  while read -r key file; do
    file=$GOLDEN_BOOT$file
    [[ -s $file ]] || { echo "$file is missing or empty" && return; }
    # drops the file from the page cache, so that the data on the disk is compared and not what was written
    dd if="$file" iflag=nocache count=0 status=none
    case $key in
      linux) kernel=$file ;;
      initrd) initrd=${initrd:-$file} ;;
    esac
  done < <(loads "$2")
  [[ -n $kernel ]] || { echo "$2 names no kernel" && return; }
  cmp -s "$kernel" "$1/kernel" || { echo "$kernel differs from the kernel in the store" && return; }
  cmp -s -n 2 "$kernel" <(printf MZ) || { echo "$kernel is no program that firmware can start" && return; }
  # an installer may append secrets to the initrd
  [[ ! -e $1/initrd ]] || cmp -s -n "$(stat -L -c %s "$1/initrd")" "${initrd:-/dev/null}" "$1/initrd" ||
    echo "${initrd:-The first stage} differs from the first stage in the store"
}

# Plans golden's entry for a generation: sets `text`, and `files` to what it loads, as `<source>=<name>`.
# Starts from the generation's own entry if it has one, which names an initrd with its secrets.
plan_entry() { # plan_entry <toplevel>
  local entry base lines key value name
  if entry=$(entry_of "$1"); then
    base=$GOLDEN_BOOT
    lines=$(<"$entry")
  elif [[ -e $1/append-initrd-secrets ]]; then
    complain "Cannot make $1 golden: it has no boot entry, and its first stage needs secrets"
    return 1
  else
    base=''
    lines="title NixOS
linux $(readlink -f "$1/kernel")
initrd $(readlink -f "$1/initrd")
options init=$1/init $(<"$1/kernel-params")"
  fi
  text='' files=()
  while read -r key value; do
    case $key in
      '') continue ;;
      title) value="$value (golden)" ;;
      linux | initrd | devicetree)
        name=${value#/nix/store/}
        name=${name#/EFI/nixos/}
        name=${name#/}
        files+=("$base$value=${name//\//-}")
        value=/EFI/golden/${name//\//-}
        ;;
      options) value="$value $quiet_options" ;;
    esac
    text+="$key $value"$'\n'
  done <<<"$lines"
}

# Writes golden's entry for a generation to the ESP, beside the former one, which stays unchanged when this
# fails. Sets `id`, the new entry's id.
stage() { # stage <toplevel>
  local text files file source target size needed=64 free hash=${1#/nix/store/}
  local -a lacking=()
  id=golden-${hash%%-*}.conf
  if [[ ! -e $1/init ]]; then
    complain "Cannot make $1 golden: it is not in the store"
    return 1
  fi
  if [[ ! -d $entries ]]; then
    complain "Cannot make $1 golden: there is no $entries (is $GOLDEN_BOOT mounted?)"
    return 1
  fi
  plan_entry "$1" || return 1
  mkdir -p "$copies"
  rm -f "$copies"/*.new "$entries"/golden-*.new
  for file in "${files[@]}"; do
    source=${file%=*}
    cmp -s "$source" "$copies/${file##*=}" && continue
    if ! size=$(stat -L -c %s "$source"); then
      complain "Cannot make $1 golden: $source cannot be read"
      return 1
    fi
    lacking+=("$file")
    needed=$((needed + size / 1024 + 4))
  done
  free=$(df --output=avail -k "$GOLDEN_BOOT" | tail -n 1)
  if ((needed > free)); then
    complain "Cannot make $1 golden: $GOLDEN_BOOT has $((free / 1024)) MiB free and $((needed / 1024 + 1)) MiB are needed"
    return 1
  fi
  for file in "${lacking[@]}"; do
    source=${file%=*} target=$copies/${file##*=}
    if ! { cp "$source" "$target.new" && sync "$target.new" &&
      dd if="$target.new" iflag=nocache count=0 status=none && cmp -s "$source" "$target.new"; }; then
      rm -f "$copies"/*.new
      complain "Cannot make $1 golden: $target cannot be written"
      return 1
    fi
    mv -T "$target.new" "$target"
  done
  # files that an entry names must be on the disk before the entry is
  if ! { printf '%s' "$text" >"$entries/$id.new" && sync -f "$GOLDEN_BOOT" &&
    mv -T "$entries/$id.new" "$entries/$id" && sync -f "$GOLDEN_BOOT"; }; then
    complain "Cannot make $1 golden: $entries/$id cannot be written"
    return 1
  fi
}

# Makes a generation golden: the boot default, with a gcroot and its own entry. If this is interrupted at any
# point, either the former generation is still golden or `keep_golden` completes the change.
pin() { # pin <toplevel>
  local id
  stage "$1" || return 1
  ln -sfn "$1" "$gcroot-next"
  if ! bootctl set-default "$id"; then
    complain "Cannot make $1 golden: the boot loader's default cannot be set"
    take_back
    return 1
  fi
  if ! write_state golden.json "{\"toplevel\":\"$1\",\"entry\":\"$id\",\"pinnedAt\":\"$(now)\"}"; then
    take_back
    return 1
  fi
  rm -f "$state/given-up"
  keep_golden
}
# Undoes a failed pin, which would fill the ESP, and keep a generation from being collected
take_back() {
  if [[ -n $(field golden.json toplevel) ]]; then keep_golden || true; else forget || true; fi
}
# Removes everything of golden, except golden.json
forget() {
  [[ $(efi_variable LoaderEntryDefault) != golden-* ]] || bootctl set-default '' || return 1
  rm -f "$gcroot" "$gcroot-next" "$entries"/golden-* && rm -rf "$copies"
}

# Restores the state that golden.json describes, and removes what an earlier golden generation left.
keep_golden() {
  local golden entry file id text
  golden=$(field golden.json toplevel) entry=$(field golden.json entry)
  if [[ ! -L $gcroot || ! $gcroot -ef $golden ]]; then
    ln -sfn "$golden" "$gcroot.new" && mv -T "$gcroot.new" "$gcroot"
  fi
  [[ ! -L $gcroot-next ]] || rm -f "$gcroot-next"
  if [[ ! -s $entries/$entry || -n $(missing_copies "$entries/$entry") ]]; then
    complain "golden's files on $GOLDEN_BOOT are not whole, and are made anew"
    stage "$golden" || return 1
  fi
  [[ $(efi_variable LoaderEntryDefault) == "$entry" ]] || bootctl set-default "$entry" || return 1
  for file in "$entries"/golden-*; do
    [[ $file == "$entries/$entry" ]] || rm -f "$file"
  done
  text=$(<"$entries/$entry")
  for file in "$copies"/*; do
    [[ $text == *"/EFI/golden/${file##*/}"* ]] || rm -f "$file"
  done
}
missing_copies() { # missing_copies <entry>
  local key file kernel=''
  while read -r key file; do
    if [[ $key == linux ]]; then kernel=$file; fi
    [[ -s $GOLDEN_BOOT$file ]] || echo "$file"
  done < <(loads "$1")
  # an entry that cannot be read names nothing at all
  [[ -n $kernel ]] || echo 'kernel'
}

# Sets what follows when the boot loader cannot load a kernel: `reset` while a generation is on trial, so that the
# next boot is golden's; else `stay`, because golden would reset in a loop. systemd-boot obeys this line of its
# configuration from 258 on, and ignores it before; a firmware that ends in its shell runs a script there.
#
# Where NixOS counts boots (from 26.11 on, with systemd-boot 260) its installer writes a `preferred` entry,
# which beats the default in LoaderEntryDefault: a failed generation would boot until its tries are used up.
# So golden becomes the preferred entry: it has no counter and never counts as bad. Without a golden
# generation, the profile's entry is preferred again.
on_boot_error() { # on_boot_error <reset|stay>
  local conf=$GOLDEN_ESP/loader/loader.conf script=$GOLDEN_ESP/startup.nsh line text='' golden entry
  if [[ $1 == reset ]]; then
    [[ -e $script ]] || printf 'reset -c\r\n' >"$script" || rm -f "$script"
  elif [[ -e $script && $(<"$script") == 'reset -c'$'\r' ]]; then
    rm -f "$script"
  fi
  [[ -e $conf ]] || return 0
  golden=$(field golden.json entry)
  while IFS='' read -r line || [[ -n $line ]]; do
    if [[ $line == preferred[[:blank:]]* && -n $golden ]]; then
      line="preferred $golden"
    elif [[ $line == preferred[[:blank:]]*golden-* ]]; then
      entry=$(entry_of "$(readlink -f "$profile")") || continue
      line="preferred $(entry_id "$entry")"
    fi
    [[ $line == reboot-on-error* ]] || text+=$line$'\n'
  done <"$conf"
  [[ $1 != reset ]] || text+='reboot-on-error yes'$'\n'
  if [[ $text != "$(<"$conf")"$'\n' ]]; then
    # a full partition must not cost the whole file
    if ! { printf '%s' "$text" >"$conf.new" && sync "$conf.new" && mv -T "$conf.new" "$conf"; }; then
      rm -f "$conf.new"
      complain "Cannot write $conf"
    fi
  fi
}

# Puts a generation on trial. If this is interrupted, it is either not on trial, or `arming`, which the next
# boot resumes: the variable is set in between.
arm() { # arm <toplevel> [<how often it was armed before>]
  local entry id reason trial oneshot counted=''
  when='at the next boot'
  if ! entry=$(entry_of "$1"); then
    disarm
    complain "Cannot put $1 on trial: no boot entry names it"
    return 1
  fi
  sync -f "$GOLDEN_BOOT"
  reason=$(unloadable "$1" "$entry")
  if [[ -n $reason ]]; then
    disarm
    complain "Cannot put $1 on trial: $reason"
    return 1
  fi
  on_boot_error reset
  id=$(entry_id "$entry")
  trial="{\"toplevel\":\"$1\",\"entry\":\"$id\",\"armedAt\":\"$(now)\",\"boot\":\"$(this_boot)\",\"state\":"
  oneshot=$(efi_variable LoaderEntryOneShot)
  # another one-shot, such as a memory test, goes first; the trial is armed once golden has booted after it
  if [[ -n $oneshot && $oneshot != "$id" ]] && ! is_ours "$oneshot"; then
    # shellcheck disable=SC2034 # whoever has it armed says so
    when="once $oneshot has booted, which a user has set to boot before it"
    write_state trial.json "$trial\"waits\",\"tries\":\"${2:-0}\"}"
    return
  fi
  # without a record, no later boot could judge the trial
  write_state trial.json "$trial\"arming\"}" || return 1
  if ! bootctl set-oneshot "$id"; then
    [[ -z $oneshot ]] || bootctl set-oneshot '' || true
    disarm
    complain "Cannot put $1 on trial: the boot loader's one-shot entry cannot be set"
    return 1
  fi
  if [[ $entry == *+* ]]; then counted=${entry##*/}; fi
  write_state trial.json "$trial\"armed\",\"counted\":\"$counted\",\"tries\":\"${2:-0}\"}"
}
# Whether a one-shot entry is the trial's, and not one that a user has set.
is_ours() { [[ $1 == "$(field trial.json entry)" && $(field trial.json state) != waits ]]; } # is_ours <entry's id>
disarm() {
  local oneshot
  oneshot=$(efi_variable LoaderEntryOneShot)
  if [[ -n $oneshot ]] && is_ours "$oneshot"; then bootctl set-oneshot '' || true; fi
  [[ ! -e $state/trial.json ]] || rm -f "$state/trial.json"
  on_boot_error stay
}

set_trial_state() { # set_trial_state <state>
  local trial
  trial=$(<"$state/trial.json")
  if [[ $trial =~ ^(.*\"state\":\")[a-z]*(.*)$ ]]; then write_state trial.json "${BASH_REMATCH[1]}$1${BASH_REMATCH[2]}"; fi
}

# This boot is the trial's when the booted system was put on trial in an earlier one, or when it was on trial and
# is now left to the upgrade that was cut off
on_trial() {
  [[ $(field trial.json toplevel) == "$(booted_system)" && $(field trial.json state) != failed ]] &&
    [[ $(field trial.json boot) != "$(this_boot)" || -e $left ]]
}
# Prints, in the boot after a trial, how it is known that the trial was not started; nothing when it was, or when that
# cannot be known
not_started() {
  local entry counted
  case $(field trial.json state) in
    arming) echo 'it was interrupted before it was armed' && return ;;
    waits) echo 'another entry was set to boot before it' && return ;;
    cleared) echo 'its one-shot entry was cleared before the reboot' && return ;;
    failed) return ;;
  esac
  # the boot loader clears it as it reads it
  if [[ $(efi_variable LoaderEntryOneShot) == "$(field trial.json entry)" ]]; then
    echo 'the boot loader has not read its one-shot entry'
    return
  fi
  counted=$(field trial.json counted)
  # each start is counted, in the name of the entry
  if [[ -n $counted ]] && entry=$(entry_of "$(field trial.json toplevel)") && [[ ${entry##*/} == "$counted" ]]; then
    echo "the boot loader has counted no start of $counted"
  fi
}

# Whether an upgrade to the booted system was cut off, and must still run its own checks
upgrade_pending() {
  local file=/var/lib/nix-local-upgrade/transaction.json text
  [[ -e $file ]] || return 1
  # a system that no longer upgrades itself will never end it
  [[ ! -d /run/booted-system/sw/bin || -e /run/booted-system/sw/bin/nix-local-upgrade ]] || return 1
  text=$(<"$file")
  # one that cannot be read may be of any upgrade
  if [[ $text != *\"stage\":* ]]; then return; fi
  [[ $text =~ \"stage\":\ *\"system\" && $text =~ \"toplevel\":\ *\"([^\"]*)\" && ${BASH_REMATCH[1]} == "$(booted_system)" ]]
}
last_failure() { # last_failure <toplevel>: time and reason of its last failed trial, or nothing
  local toplevel rest last=''
  [[ -e $state/failed ]] || return 0
  while read -r toplevel rest; do
    if [[ $toplevel == "$1" ]]; then last=$rest; fi
  done <"$state/failed"
  echo "$last"
}
record_failure() { # record_failure <toplevel> <reason>
  local lines=''
  [[ ! -e $state/failed ]] || lines=$(tail -n 100 "$state/failed")
  write_state failed "${lines:+$lines$'\n'}$1 $(now) ${2//$'\n'/ }"
}
forgive() { # forgive <toplevel>: drops its failures, as it has passed
  if [[ -n $(last_failure "$1") ]]; then
    write_state failed "$(grep -v -F "$1 " "$state/failed" || true)"
  fi
}
# Whether the next boot starts golden. A partition that is not mounted, as in emergency mode, cannot be checked or
# mended, and the boot loader does not need it mounted.
leads_to_golden() {
  # golden's initrd would find no system, and halt there
  [[ -e $(field golden.json toplevel)/init ]] || return 1
  if [[ -d $entries ]]; then
    keep_golden
  else
    [[ $(efi_variable LoaderEntryDefault) == "$(field golden.json entry)" ]]
  fi
}
# Ends the trial in its own boot. Without a golden generation that can boot, the machine stays up: a reboot
# would lead back to here.
fail_trial() { # fail_trial <reason>
  # reboot even where the failure cannot be recorded
  record_failure "$(booted_system)" "$1" || true
  set_trial_state failed || true
  # still set where this boot bypassed the boot loader, as kexec does; the next boot would be the trial again
  [[ $(efi_variable LoaderEntryOneShot) != "$(field trial.json entry)" ]] || bootctl set-oneshot '' || true
  if [[ -z $(field golden.json toplevel) ]] || ! leads_to_golden; then
    complain 'no golden generation to go back to: this one keeps running'
    return 0
  fi
  echo 'going back to the golden generation'
  systemctl --no-block reboot && return
  complain 'systemd does not accept the reboot, so the machine reboots without its help'
  sync
  systemctl --force --force reboot
}

# Makes golden the system profile, and the default in the boot loader's own file, without changing the running
# system.
profile_to_golden() {
  local golden link number latest=0
  golden=$(field golden.json toplevel)
  if [[ ! $profile -ef $golden ]]; then
    for link in "$profile"-*-link; do
      number=${link#"$profile"-}
      number=${number%-link}
      # a link that a user made has no number
      if [[ $number =~ ^[0-9]+$ && $link -ef $golden ]] && ((number > latest)); then latest=$number; fi
    done
    if ((latest > 0)); then
      # as nix-env does, which takes a second under emulation
      ln -sfn "${profile##*/}-$latest-link" "$profile.golden" && mv -T "$profile.golden" "$profile" || return 1
    else
      nix-env --profile "$profile" --set "$golden" || return 1
    fi
  fi
  "$golden/bin/switch-to-configuration" boot
}

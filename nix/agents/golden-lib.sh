# shellcheck shell=bash
# What the commands of the golden generation share: each of them is this file followed by its own.
#
# Golden is the generation that is known to boot: the boot default, by the EFI variable
# LoaderEntryDefault, which no installer of boot entries touches. Any other generation that is made the
# system is on trial: the next boot starts it once, by LoaderEntryOneShot, which the boot loader takes
# back as it reads it. Whatever becomes of that boot, the one after it is golden's.
#
# State, each file replaced as a whole:
#   golden.json  toplevel, entry (its id) and time of what is golden
#   trial.json   what is on trial: toplevel, entry, time, the boot in which it was armed and `tries` before that;
#                `counted`, its file where the boot loader counts boots in the name; and `state`:
#                  arming   its one-shot may not be set yet
#                  armed    in a later boot it has been tried, unless `not_started` knows better
#                  waits    somebody has set another entry to boot once before it
#                  cleared  its one-shot was gone when the machine went down
#                  failed   its own boot has written down why
#   failed       generations that failed their trial, a line each: <toplevel> <time> <reason>
#   given-up     the toplevel of what was golden until a rebuild turned all of this off
# Golden has boot entry, kernel and first stage of its own on the ESP: an installer removes those of
# generations that were collected, and a gcroot keeps a closure only.
#
# GOLDEN_BOOT is the partition with the boot entries, GOLDEN_ESP the EFI system partition: mostly one.
# What bash can do itself it does: in an emulated guest each program that is started is a tenth of a second.

state=/var/lib/golden-generation
profile=/nix/var/nix/profiles/system
gcroot=/nix/var/nix/gcroots/golden-generation
entries=$GOLDEN_BOOT/loader/entries
copies=$GOLDEN_BOOT/EFI/golden
# a good boot of what an upgrade was cut off at, which is not golden before that has run its own checks
left=/run/golden-generation.left
# A panic or a hang of golden halts the machine: there is nothing left to fall back to, and coming back
# again and again would wipe the console that says why. Once its boot was validated both are turned on
# (see `guard`), as from then on it is known that a reboot leads somewhere.
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
  # anybody may lock what they can read
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
write_state() { # write_state <file> <text>; fails where it cannot, and the file is as it was
  if mkdir -p "$state" && printf '%s\n' "$2" >"$state/$1.new" && sync "$state/$1.new" &&
    mv -T "$state/$1.new" "$state/$1" && sync "$state"; then return; fi
  rm -f "$state/$1.new"
  complain "Cannot write $state/$1"
  return 1
}
now() { TZ=UTC printf '%(%Y-%m-%dT%H:%M:%SZ)T' -1; }
this_boot() { echo "$(</proc/sys/kernel/random/boot_id)"; }
booted_system() { readlink -f /run/booted-system || true; }

# A damaged disk, or a backup, may have left less of a record than there was, and whoever believed it would take golden's
# own files for another's. Golden is known by its root as well, and what is the system and not golden is on trial.
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
  # 4 bytes of attributes, then UTF-16 of what is ASCII
  [[ ! -e $file ]] || tr -d '\0-\7' <"$file"
}

# The boot entry of a generation by what is in it, as its name differs between installers. Theirs come first: a copy that
# somebody made, as of one for a rescue mode, is of the same generation
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
# What it loads, as `<key> <path on its partition>`; the last line of an entry may lack its end
loads() { # loads <entry>
  local key file
  while read -r key file || [[ -n $key ]]; do
    case $key in linux | initrd | devicetree) echo "$key $file" ;; esac
  done <"$1"
}
# How the boot loader calls it: by the file without what boot counting adds to the name
entry_id() {
  local id=${1##*/}
  if [[ $id =~ ^(.+)\+[0-9]+(-[0-9]+)?\.conf$ ]]; then id=${BASH_REMATCH[1]}.conf; fi
  echo "${id,,}"
}

# Why the boot loader could not start a generation from what lies on the ESP; nothing when it could. A
# kernel that it cannot load would end in the firmware, and no panic or watchdog would bring that back.
unloadable() { # unloadable <toplevel> <entry>
  local key file kernel='' initrd=''
  while read -r key file; do
    file=$GOLDEN_BOOT$file
    [[ -s $file ]] || { echo "$file is missing or empty" && return; }
    # what the disk has is to be compared, and not what is left in memory of writing it
    dd if="$file" iflag=nocache count=0 status=none
    case $key in
      linux) kernel=$file ;;
      initrd) initrd=${initrd:-$file} ;;
    esac
  done < <(loads "$2")
  [[ -n $kernel ]] || { echo "$2 names no kernel" && return; }
  cmp -s "$kernel" "$1/kernel" || { echo "$kernel differs from the kernel in the store" && return; }
  cmp -s -n 2 "$kernel" <(printf MZ) || { echo "$kernel is no program that firmware can start" && return; }
  # an installer may append secrets to the first stage
  [[ ! -e $1/initrd ]] || cmp -s -n "$(stat -L -c %s "$1/initrd")" "${initrd:-/dev/null}" "$1/initrd" ||
    echo "${initrd:-The first stage} differs from the first stage in the store"
}

# Golden's entry for a generation: sets `text`, and `files` to what it loads, as `<source>=<name>`.
# The generation's own entry where it has one: there a first stage with its secrets is found.
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

# Puts golden's entry for a generation on the ESP, beside a former one, which stays as it is when this
# fails. Sets `id`, the new entry's.
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
  # what an entry names is on the disk before the entry is
  if ! { printf '%s' "$text" >"$entries/$id.new" && sync -f "$GOLDEN_BOOT" &&
    mv -T "$entries/$id.new" "$entries/$id" && sync -f "$GOLDEN_BOOT"; }; then
    complain "Cannot make $1 golden: $entries/$id cannot be written"
    return 1
  fi
}

# Makes a generation golden: the boot default, rooted, with an entry of its own. Interrupted at any
# point, either the former one is golden still or `keep_golden` finishes it.
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
# What a pin has made that came to nothing would fill the ESP, and keep a generation from being collected
take_back() {
  if [[ -n $(field golden.json toplevel) ]]; then keep_golden || true; else forget || true; fi
}
# Takes away whatever golden has, but for what golden.json says
forget() {
  [[ $(efi_variable LoaderEntryDefault) != golden-* ]] || bootctl set-default '' || return 1
  rm -f "$gcroot" "$gcroot-next" "$entries"/golden-* && rm -rf "$copies"
}

# Makes what golden.json says true, and takes away what an earlier golden had.
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

# What follows when the boot loader cannot load a kernel: `reset` while a generation is on trial, and the
# next boot is golden's; else `stay`, as for golden that would be a loop. systemd-boot reboots from 258 on
# when told so, and does not mind the line before; a firmware that ends in its shell runs a script there.
#
# Where NixOS counts boots (from 26.11 on, with systemd-boot 260) its installer writes a `preferred` entry,
# which beats the default in LoaderEntryDefault: a generation that failed would boot until its tries are
# used up. So what is preferred is golden, whose own entry has no counter and is never taken for bad; and
# the profile's again when there is no golden any more.
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

# Puts a generation on trial. Interrupted, it is either not on trial, or `arming` and taken up at the
# next boot: the variable is set in between.
arm() { # arm <toplevel> [<how often before>]
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
  # as for a test of the memory; the trial is armed once golden has booted after it
  if [[ -n $oneshot && $oneshot != "$id" ]] && ! is_ours "$oneshot"; then
    # shellcheck disable=SC2034 # whoever has it armed says so
    when="once $oneshot has booted, which somebody has set"
    write_state trial.json "$trial\"waits\",\"tries\":\"${2:-0}\"}"
    return
  fi
  # a trial of which nothing is known would be nobody's to judge
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
# Whether a one-shot entry is that of the trial, and not one that somebody has set.
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

# This boot is the trial's when the booted system is on trial since an earlier one, or was and is left to the
# upgrade that was cut off at it
on_trial() {
  [[ $(field trial.json toplevel) == "$(booted_system)" && $(field trial.json state) != failed ]] &&
    [[ $(field trial.json boot) != "$(this_boot)" || -e $left ]]
}
# By what it is known, in the boot after it, that the trial was not started; nothing when it was, or when that
# cannot be known
not_started() {
  local entry counted
  case $(field trial.json state) in
    arming) echo 'it was interrupted before it was armed' && return ;;
    waits) echo 'another entry was set to boot before it' && return ;;
    cleared) echo 'its one-shot entry was taken back before the reboot' && return ;;
    failed) return ;;
  esac
  # the boot loader takes it back as it reads it
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

# Whether an upgrade to what is booted was cut off, and has still to run its own checks
upgrade_pending() {
  local file=/var/lib/nix-local-upgrade/transaction.json text
  [[ -s $file ]] || return 1
  # a system that does not upgrade itself any more will never end it
  [[ ! -d /run/booted-system/sw/bin || -e /run/booted-system/sw/bin/nix-local-upgrade ]] || return 1
  text=$(<"$file")
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
forgive() { # forgive <toplevel>: it has passed
  if [[ -n $(last_failure "$1") ]]; then
    write_state failed "$(grep -v -F "$1 " "$state/failed" || true)"
  fi
}
# Whether the next boot is golden's. What is not mounted, as in emergency mode, cannot be looked at or mended, and the
# boot loader does not need it mounted.
leads_to_golden() {
  # its first stage would find no system, and halt there
  [[ -e $(field golden.json toplevel)/init ]] || return 1
  if [[ -d $entries ]]; then
    keep_golden
  else
    [[ $(efi_variable LoaderEntryDefault) == "$(field golden.json entry)" ]]
  fi
}
# Ends the trial in its own boot. Without a golden generation that can be booted it stays up: a reboot
# would lead back to here.
fail_trial() { # fail_trial <reason>
  # back it goes, even where that cannot be written down
  record_failure "$(booted_system)" "$1" || true
  set_trial_state failed || true
  # not read yet where this boot came without the boot loader, as by kexec; the next one would be the trial's again
  [[ $(efi_variable LoaderEntryOneShot) != "$(field trial.json entry)" ]] || bootctl set-oneshot '' || true
  if [[ -z $(field golden.json toplevel) ]] || ! leads_to_golden; then
    complain 'no golden generation to go back to: this one keeps running'
    return 0
  fi
  echo 'going back to the golden generation'
  systemctl --no-block reboot && return
  complain 'systemd does not take the reboot, so it comes without it'
  sync
  systemctl --force --force reboot
}

# Makes golden the system profile, and the default in the boot loader's own file, without touching what
# runs.
profile_to_golden() {
  local golden link number latest=0
  golden=$(field golden.json toplevel)
  if [[ ! $profile -ef $golden ]]; then
    for link in "$profile"-*-link; do
      number=${link#"$profile"-}
      number=${number%-link}
      # a link of somebody's own has no number
      if [[ $number =~ ^[0-9]+$ && $link -ef $golden ]] && ((number > latest)); then latest=$number; fi
    done
    if ((latest > 0)); then
      # as nix-env does it, which takes a second under emulation
      ln -sfn "${profile##*/}-$latest-link" "$profile.golden" && mv -T "$profile.golden" "$profile" || return 1
    else
      nix-env --profile "$profile" --set "$golden" || return 1
    fi
  fi
  "$golden/bin/switch-to-configuration" boot
}

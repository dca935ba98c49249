import { programPath } from '../vm/guest-agent.ts'
import { profileOf, type Subject } from './subject.ts'
import { statesNow, statusLog, watcherUnit } from './status-log.ts'

const efi = '/sys/firmware/efi/efivars'
const loader = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f'

/** Shell functions that print one fact. A fact whose command fails is reported as unread, not as empty. */
const asking = `set -o pipefail
s() { printf '\\036%s\\n' "$1"; }
ask() { # ask <section> <command..>
  s "$1"; "\${@:2}" || printf '\\036unread %s\\nexit %s\\n' "$1" "$?"
}`

/**
 * All questions as one script. An emulated guest takes a tenth of a second to start a program, so the script uses
 * bash's builtins where it can.
 */
export const asRoot = (
  units: string[],
  user: string,
  clones: string[],
  subject: Subject,
): string => `
${programPath} LC_ALL=C
${asking}
whole() { local text; text=$(<"$1") && echo "$text"; }
show() { [ ! -e "$1" ] || whole "$1"; }
# wait until the boot has finished
timeout 120 systemctl is-system-running --wait >/dev/null 2>&1
ask bootId whole /proc/sys/kernel/random/boot_id
states() { ${statesNow}; }
ask states states
${profileOf(subject)}
ask links readlink -f /run/current-system /run/booted-system "$profile" /nix/var/nix/gcroots/golden-generation
variable() { # fails where the EFI variables are not mounted; one that is not set prints nothing
  compgen -G '${efi}/*' >/dev/null || return
  [ ! -e "${efi}/LoaderEntry$1-${loader}" ] || tr -d '\\000-\\007' <"${efi}/LoaderEntry$1-${loader}"
}
for name in Default OneShot; do ask "efi$name" variable "$name"; done
ask loaderConf show /boot/loader/loader.conf
for file in /boot/loader/entries/*.conf; do ask "entry \${file##*/}" show "$file"; done
ask golden show /var/lib/golden-generation/golden.json
ask failedTrials show /var/lib/golden-generation/failed
ask deployed show /var/lib/nix-local-upgrade/deployed
ask transaction show /var/lib/nix-local-upgrade/transaction.json
s goldenFiles
record=$(show /var/lib/golden-generation/golden.json)
[[ $record =~ \\"toplevel\\":[[:space:]]*\\"([^\\"]*)\\" ]] && toplevel=\${BASH_REMATCH[1]}
if [[ $record =~ \\"entry\\":[[:space:]]*\\"([^\\"]*)\\" ]] && [ -e "/boot/loader/entries/\${BASH_REMATCH[1]}" ]; then
  while read -r key value _; do
    case $key in linux) file=kernel ;; initrd) file=initrd ;; *) continue ;; esac
    if cmp -s "/boot$value" "$toplevel/$file"; then echo "$key same"; else echo "$key differs"; fi
  done <"/boot/loader/entries/\${BASH_REMATCH[1]}"
fi
ask trial show /var/lib/golden-generation/trial.json
shopt -s nullglob
generations() {
  local links=("$profile"-*-link)
  printf '%s\\n' "\${links[@]##*/}"; readlink "\${links[@]}"
}
ask generations generations
beside() {
  local link
  for link in /nix/var/nix/profiles/{system,system-profiles/*}-*-link; do
    case $link in "$profile"-[0-9]*) ;; *) readlink "$link" || return ;; esac
  done
}
ask beside beside
specialisations() { ! compgen -G "$profile-*-link/specialisation/*" >/dev/null || readlink -f "$profile"-*-link/specialisation/*; }
ask specialisations specialisations
s current; echo "\${profile##*/} $(readlink "$profile")"
ask menuLimit show "$profile/configuration-limit"
s bootFiles; files=(/boot/* /boot/EFI/{nixos,golden}/* /boot/loader/* /boot/loader/entries/*); printf '%s\\n' "\${files[@]#/boot/}"
ask startupScript show /boot/startup.nsh
open_locks() {
  local locks
  locks=$(find /run -maxdepth 1 -name '*.lock' -perm /066) || return
  grep -E '/(golden-generation|nix-local-upgrade|reachability)[.]lock$' <<<"$locks" || [ $? = 1 ]
}
ask openLocks open_locks
foreign() ( # a file that vanishes during the search does not count; any other error of find is listed with the files
  cd ~${user} || exit
  { find "$PWD" ${clones.filter((path) => path.startsWith('/')).join(' ')} ! -user ${user} 2>&1 || [ $? = 1 ]; } |
    awk '!/: No such file or directory$/ && found++ < 5'
)
ask foreign foreign
# boot counting depends on this target; where nothing has started it, starting it must work
{ systemctl --quiet is-active golden-boot-validation.service || ! systemctl cat golden-boot-validation.service >/dev/null 2>&1; } &&
  timeout 60 systemctl start boot-complete.target
# an empty journal does not count as a clean one
journal() {
  journalctl --boot --quiet --no-pager --output=cat _PID=1 + _TRANSPORT=kernel | awk '/${telling}/; END { exit NR == 0 }'
}
ask journal journal
ask units systemctl show -p Id -p ActiveState ${units.join(' ')}
ask failedUnits systemctl --failed --plain --no-legend --no-pager
# by now the watcher has logged the states that it found when it started
watched() { systemctl --quiet is-active ${watcherUnit} && whole ${statusLog}; }
ask status watched
s store; nix-store --verify 2>&1 || echo "exit $?"
s newPaths
declare -A old
while read -r name; do old[$name]=1; done <${baselinePaths}
fresh=()
for path in /nix/store/*; do
  case $path in *.lock | *.chroot | *.tmp | /nix/store/.*) continue ;; esac
  [ -n "\${old[\${path##*/}]-}" ] || fresh+=("$path")
done
if [ \${#fresh[@]} -gt 0 ]; then
  declare -A invalid
  while read -r path; do invalid[$path]=1; done < <(nix-store --check-validity --print-invalid "\${fresh[@]}")
  valid=()
  for path in "\${fresh[@]}"; do [ -n "\${invalid[$path]-}" ] || valid+=("$path"); done
  echo "\${#valid[@]}"
  [ \${#valid[@]} -eq 0 ] || nix-store --verify-path "\${valid[@]}" 2>&1 || echo "exit $?"
else echo 0
fi
s end
`

/**
 * Journal messages of a boot that is not in order. Soft lockups are left out: a guest that is restored from a snapshot
 * reports its CPU as `stuck` for the age of the snapshot.
 */
const telling = [
  'ordering cycle',
  'deleted to break',
  'restart counter is at',
  '\\[#[0-9]+\\]',
  'kernel BUG at',
  'BUG: unable to handle',
].join('|')

/** List of the baseline's store paths, written before its snapshot so that every case has it. */
export const baselinePaths = '/var/lib/lab-baseline-paths'

/** Questions that are asked as the primary user, about each clone. */
export const asUser = (clones: string[]): string => `
export LC_ALL=C
${asking}
# without sizes, which are in bytes and of no use once the text is decoded
raw() { git rev-list --all | git cat-file --batch=$'\\035%(objectname)'; }
for repository in ${clones.join(' ')}; do
  cd && cd "$repository" || continue
  ask "visible $repository" jj --ignore-working-copy log --no-graph --revisions 'all()' --template 'change_id ++ " " ++ commit_id ++ "\\n"' 2>&1
  ask "heads $repository" git for-each-ref --format='%(objectname)' refs/remotes
  ask "patches $repository" git log --patch --unified=0 --no-color --no-ext-diff --format='%x1d%H' --all --not --remotes -- ':(exclude).jjconflict-*'
  ask "settling $repository" git log --merges --remerge-diff --name-only --format='%x1d%H' --all -- ':(exclude).jjconflict-*'
  ask "commits $repository" raw
done
s end
`

import { Failure } from '../failure.ts'
import { programPath } from '../vm/guest-agent.ts'
import { fromHome, type LabSettings } from '../lab-settings.ts'
import type { Machine } from './machine.ts'
import { defaultOf } from './boot-entries.ts'
import { profileOf, type Subject } from './subject.ts'
import { readStatusLog, statesNow, statusLog, watcherUnit, type Seen } from './status-log.ts'

/** What a VM says of itself, over SSH as root and as its user, and through the guest agent. */
export interface Facts {
  bootId: string
  /** As the guest agent has it; undefined when it does not answer. */
  agentBootId: string | undefined
  running: string
  booted: string
  profile: string
  /** What golden's gcroot points at. */
  gcroot: string
  /** Entry that boots whenever none is set for once, or a pattern for it: loader.conf's, or an EFI variable's. */
  defaultEntry: string
  /** Entry that boots next, once. */
  oneShot: string | undefined
  /** Text by file name, of every entry on the ESP. */
  entries: Record<string, string>
  golden: GoldenRecord | undefined
  /** `<toplevel> <time> <reason>` lines. */
  failedTrials: string[]
  /** `linux` and `initrd` of golden's entry: `same` as the store's, or `differs`. */
  goldenFiles: Record<string, string>
  /** What `nix-store --verify` complained of; empty when nothing. */
  store: string
  /** Valid paths that came since the baseline, how many, and those whose contents are not theirs. */
  newPaths: number
  spoiltPaths: string[]
  /** ActiveState by unit. */
  units: Record<string, string>
  failedUnits: string[]
  /** The last upgrade that held. */
  deployed: { commit: string; toplevel: string } | undefined
  /** Text of the upgrade's transaction file, where there is one. */
  transaction: string | undefined
  /** Toplevel by number, of each generation of the profile that is deployed by. */
  generations: Record<number, string>
  /** Toplevels of their specialisations, which have entries of their own. */
  specialisations: string[]
  /** Toplevels of the generations of other profiles, which have entries too. */
  beside: string[]
  /** `system`, or what stands in brackets in the entries of another profile. */
  profileName: string
  /** The generation that the profile points at. */
  current: number
  /** How many generations the boot menu has at most, 0 for all; undefined where the guest does not say. */
  menuLimit: number | undefined
  loaderConf: string
  /** Every file of the ESP that an agent or an installer writes, by its path below /boot. */
  bootFiles: string[]
  /** What the firmware's shell runs where nothing boots. */
  startupScript: string
  /** Locks of the agents that another than root could hold. */
  openLocks: string[]
  trial: TrialRecord | undefined
  /** What this boot's journal has of ordering cycles, oopses and units that are started again and again. */
  journal: string[]
  /** What the watcher saw of the agents' status files. */
  seen: Seen[]
  /** What these files have now. */
  states: string[]
  /** What could not be read, each with how its command ended: of it nothing else here says anything. */
  unread: string[]
  /** Files of the primary user's that are not the user's own. */
  foreign: string[]
  repositories: Record<string, Repository>
}

export interface GoldenRecord {
  toplevel: string
  entry: string
}

export interface TrialRecord {
  toplevel: string
  entry: string
  state: string
  /** In which it was put on trial. */
  boot: string
}

/** A colocated jj repository. */
export interface Repository {
  /** Every commit that jj ever made or fetched here, by its id. */
  commits: Record<string, CommitFacts>
  /** Changes that are visible now. */
  visible: string[]
  /** The commits that these changes are now. */
  shown: string[]
  /** What a commit that no branch of the remote has adds and takes away, by its id. */
  patches: Record<string, string>
  /** Merges that say something of their own: what git makes of their parents by itself is another text. */
  settling: string[]
  /** Commits that a branch of the remote had at the last fetch. */
  heads: string[]
}

export interface CommitFacts {
  /** jj's id of the change; a commit that git made has none. */
  change: string | undefined
  tree: string
  parents: string[]
  /** Author, time of writing and message: what a copy of a commit has in common with it. */
  origin: string
}

/** The clones of the primary user, by where they are: below the home, or absolute. */
export const clonesOf = ({ flake, dotfiles }: LabSettings['paths']): string[] =>
  [flake, dotfiles].map(fromHome)

const efi = '/sys/firmware/efi/efivars'
const loader = '4a67b082-0a4c-41cf-b6c7-440b29bb8c4f'

/** Shell that asks for one fact. One whose command fails is told as unread, and not taken for nothing. */
const asking = `set -o pipefail
s() { printf '\\036%s\\n' "$1"; }
ask() { # ask <section> <command..>
  s "$1"; "\${@:2}" || printf '\\036unread %s\\nexit %s\\n' "$1" "$?"
}`

/**
 * One script over one command: an emulated guest pays a tenth of a second for each program that is
 * started, so what bash can do itself it does.
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
# what a boot has begun is part of it
timeout 120 systemctl is-system-running --wait >/dev/null 2>&1
ask bootId whole /proc/sys/kernel/random/boot_id
states() { ${statesNow}; }
ask states states
${profileOf(subject)}
ask links readlink -f /run/current-system /run/booted-system "$profile" /nix/var/nix/gcroots/golden-generation
variable() { # where they are not mounted, none is missed
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
foreign() ( # what goes while it is looked at is no file any more; whatever else find says stands beside what it found
  cd ~${user} || exit
  { find "$PWD" ${clones.filter((path) => path.startsWith('/')).join(' ')} ! -user ${user} 2>&1 || [ $? = 1 ]; } |
    awk '!/: No such file or directory$/ && found++ < 5'
)
ask foreign foreign
# whoever counts boots asks for this target; where nobody does, it must be there to be had
{ systemctl --quiet is-active golden-boot-validation.service || ! systemctl cat golden-boot-validation.service >/dev/null 2>&1; } &&
  timeout 60 systemctl start boot-complete.target
# an empty journal is no clean one
journal() {
  journalctl --boot --quiet --no-pager --output=cat _PID=1 + _TRANSPORT=kernel | awk '/${telling}/; END { exit NR == 0 }'
}
ask journal journal
ask units systemctl show -p Id -p ActiveState ${units.join(' ')}
ask failedUnits systemctl --failed --plain --no-legend --no-pager
# by now it has written down what was there at the beginning
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
 * What the journal says of a boot that is not in order. A soft lockup is not among it: a guest whose snapshot
 * was put back finds its CPU `stuck` for as long as the snapshot lay there.
 */
const telling = [
  'ordering cycle',
  'deleted to break',
  'restart counter is at',
  '\\[#[0-9]+\\]',
  'kernel BUG at',
  'BUG: unable to handle',
].join('|')

/** What a baseline's store held; written before its snapshot, so that each case finds it. */
export const baselinePaths = '/var/lib/lab-baseline-paths'

/** What is asked as the primary user, of each clone. */
export const asUser = (clones: string[]): string => `
export LC_ALL=C
${asking}
# byte counts are of no use to a reader of text
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

/** Seconds that a VM has to answer all of it. */
export const factsWithin = ({ patience }: Machine): number => 120 + 60 * patience

/**
 * Asks a VM for all that the oracle judges.
 * @throws Failure when it does not answer on SSH
 */
export async function askFacts(vm: Machine, units: string[], clones: string[]): Promise<Facts> {
  const limit = factsWithin(vm)
  const [root, user, agent] = await Promise.all([
    vm.root('exec bash -s', {
      input: asRoot(units, vm.vm.user, clones, vm.subject),
      timeout: limit,
      allow: 'any',
    }),
    vm.user('exec bash -s', { input: asUser(clones), timeout: limit, allow: 'any' }),
    vm.agent('cat /proc/sys/kernel/random/boot_id').catch(() => undefined),
  ])
  return readFacts(root.stdout, user.stdout, agent?.stdout)
}

/** @throws Failure when an answer was cut short, as by a reboot */
export function readFacts(root: string, user: string, agent: string | undefined): Facts {
  const said = { ...sections(root), ...sections(user) }
  const lines = (name: string): string[] => (said[name] ?? '').split('\n').filter(Boolean)
  if (!root.trimEnd().endsWith('\u001eend') || !user.trimEnd().endsWith('\u001eend')) {
    throw new Failure('Cannot ask the VM for its state: its answer was cut short', {
      evidence: (root + user).slice(-500),
    })
  }
  const [running = '', booted = '', profile = '', gcroot = ''] = lines('links')
  const named = (prefix: string): [string, string][] =>
    Object.entries(said).flatMap(([name, text]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), text]] : [],
    )
  const at = (clone: string): string[][] =>
    lines(`visible ${clone}`).flatMap((line) =>
      /^[k-z]+ [0-9a-f]{40}$/.test(line) ? [line.split(' ')] : [],
    )
  const entries = Object.fromEntries(named('entry '))
  const [profileName = '', link = ''] = (said['current'] ?? '').trim().split(' ')
  const [count = '0', ...spoilt] = lines('newPaths')
  const [deployed = '', , ofIt = ''] = (said['deployed'] ?? '').trim().split(' ')
  return {
    bootId: said['bootId']?.trim() ?? '',
    agentBootId: agent?.trim(),
    running,
    booted,
    profile,
    gcroot,
    defaultEntry: defaultOf(entries, said['loaderConf'] ?? '', said['efiDefault']?.trim() ?? ''),
    oneShot: said['efiOneShot']?.trim() || undefined,
    entries,
    golden: readRecord(said['golden']) as GoldenRecord | undefined,
    failedTrials: lines('failedTrials'),
    goldenFiles: pairs(lines('goldenFiles'), ' '),
    store: lines('store')
      .filter((line) => !/^(reading|checking|finding|\s*$)/.test(line))
      .join('\n'),
    newPaths: Number(count),
    spoiltPaths: spoilt.filter((line) => !line.startsWith('checking path')),
    units: Object.fromEntries(
      (said['units'] ?? '').split('\n\n').map((block) => {
        const values = pairs(block.trim().split('\n'), '=')
        return [values['Id'] ?? '', values['ActiveState'] ?? '']
      }),
    ),
    failedUnits: lines('failedUnits').map((line) => line.split(' ')[0]!),
    deployed: deployed ? { commit: deployed, toplevel: ofIt } : undefined,
    // one that is there and holds nothing is a line without a word
    transaction: said['transaction'] ? said['transaction'].trim() || 'an empty file' : undefined,
    generations: readGenerations(lines('generations')),
    specialisations: lines('specialisations'),
    beside: lines('beside'),
    profileName,
    current: Number(/-(\d+)-link$/.exec(link)?.[1]),
    menuLimit: said['menuLimit']?.trim() ? Number(said['menuLimit']) : undefined,
    loaderConf: said['loaderConf'] ?? '',
    bootFiles: lines('bootFiles'),
    startupScript: said['startupScript']?.trim() ?? '',
    openLocks: lines('openLocks'),
    trial: readRecord(said['trial']) as TrialRecord | undefined,
    journal: lines('journal'),
    seen: readStatusLog(said['status'] ?? ''),
    states: lines('states'),
    unread: [
      ...named('unread ').map(([name, text]) => `${name}: ${text.trim()}`),
      // what the agents would still take for a record
      ...['golden', 'trial'].flatMap((name) =>
        said[name] && readRecord(said[name]) === undefined ? [`${name}: it holds no JSON`] : [],
      ),
    ],
    foreign: lines('foreign'),
    repositories: Object.fromEntries(
      named('commits ').map(([name, text]) => [
        name,
        {
          commits: readCommits(text),
          // whatever else jj says is no change
          ...{ visible: at(name).map(([change]) => change!), shown: at(name).map(([, id]) => id!) },
          patches: readPatches(said[`patches ${name}`] ?? ''),
          settling: readSettling(said[`settling ${name}`] ?? ''),
          heads: lines(`heads ${name}`),
        },
      ]),
    ),
  }
}

function sections(text: string): Record<string, string> {
  const parts = text.split('\u001e').slice(1)
  return Object.fromEntries(
    parts.map((part) => {
      const end = part.indexOf('\n')
      return [part.slice(0, end < 0 ? undefined : end), end < 0 ? '' : part.slice(end + 1)]
    }),
  )
}

const pairs = (lines: string[], between: string): Record<string, string> =>
  Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf(between)
      return at < 0 ? [line, ''] : [line.slice(0, at), line.slice(at + 1)]
    }),
  )

/** Half a file, as after a power cut, is none. */
function readRecord(text = ''): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Names and then targets, of as many links. */
const readGenerations = (lines: string[]): Facts['generations'] =>
  Object.fromEntries(
    lines
      .slice(0, lines.length / 2)
      .map((name, index) => [
        Number(/-(\d+)-link$/.exec(name)?.[1]),
        lines[lines.length / 2 + index]!,
      ]),
  )

/** The lines that each commit adds and takes away, with the files that they are of, wherever they stand. */
function readPatches(text: string): Repository['patches'] {
  const parts = text.split('\u001d').slice(1)
  return Object.fromEntries(
    parts.map((part) => {
      const [id = '', ...lines] = part.split('\n')
      const changed = lines.filter((line) => /^([+-]|Binary files)/.test(line))
      return [id, changed.join('\n')]
    }),
  )
}

/** Merges with the names of files that are not as git merges them; those in which jj has left a conflict settle none. */
function readSettling(text: string): string[] {
  const parts = text.split('\u001d').slice(1)
  return parts.flatMap((part) => {
    const [id = '', ...names] = part.split('\n').filter(Boolean)
    return names.length === 0 || names.includes('JJ-CONFLICT-README') ? [] : [id]
  })
}

/** The raw commits of `git cat-file --batch`; jj keeps its change id in a header of its own. */
function readCommits(text: string): Repository['commits'] {
  const parts = text.split('\u001d').slice(1)
  return Object.fromEntries(
    parts.map((part) => {
      const end = part.indexOf('\n')
      const id = part.slice(0, 40)
      const [header = '', ...message] = part.slice(end + 1).split('\n\n')
      const author = /^author (.+)$/m.exec(header)?.[1] ?? ''
      return [
        id,
        {
          change: /^change-id (\w+)$/m.exec(header)?.[1],
          tree: /^tree (\w+)$/m.exec(header)?.[1] ?? '',
          parents: [...header.matchAll(/^parent (\w+)$/gm)].map(([, parent]) => parent!),
          origin: `${author}\n${message.join('\n\n').trim()}`,
        },
      ]
    }),
  )
}

/**
 * Random rounds for the dotfile agent: a source in two states, using chezmoi's attributes, and a home with
 * files of its own. Each is one bash script, because entering the scratch root costs more than a round.
 *
 * Everything the user makes contains a mark `U<number>_`: in its text, its name or its link target. Every mark
 * that was in the home before a synchronization must be there afterwards.
 */
import { lines, quote } from './dotfiles.ts'

type Chance = (below: number) => number

function chanceOf(seed: number): Chance {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

/** Names that sources and homes share: [name in a home, name in a source]. */
const allNames = [
  ['.a', 'dot_a'],
  ['.b c', 'dot_b c'],
  ['.d', 'dot_d'],
  ['.e', 'dot_e'],
  ['f', 'f'],
  ['.n\nl', 'dot_n\nl'],
  ['-h', '-h'],
  ['.g*', 'dot_g*'],
  ['.q"\'$\\', 'dot_q"\'$\\'],
  ['run_r', 'literal_run_r'],
  ['.t.tmpl', 'dot_t.tmpl.literal'],
  ['.é', 'dot_é'],
] as const
type Names = ReadonlyArray<readonly [string, string]>
const below = ['x', 'y', 'sub'] as const
const placesOf = (names: Names): string[] =>
  names.flatMap(([name]) => [name, ...below.map((child) => `${name}/${child}`), `${name}/sub/z`])
/** True for names that need no quoting in TOML or in a list of patterns. */
const plain = (name: string): boolean => !/[\n*"$]/.test(name)

/** Bash functions that rounds are made of. $base is the round's own directory. */
export const prelude = String.raw`
set -u
export LC_ALL=C.UTF-8 GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=o GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=o@o
[ -e ~/age.key ] || age-keygen -o ~/age.key 2>/dev/null
recipient=$(age-keygen -y ~/age.key)
encrypted=$(echo encrypted | age -r "$recipient" -a)
begin() { # <seed> <directory that is the home>
  base=$(mktemp -d ~/round.XXXXXX) seed=$1 bad=
  home=$base/home theirs=$base/theirs
  mkdir -p "$base/$2/.config/chezmoi" "$theirs"
  [ -e "$home" ] || ln -s "$2" "$home"
  : >"$base/made"
  printf '%s\n' 'encryption = "age"' '[age]' "identity = \"$HOME/age.key\"" "recipient = \"$recipient\"" >"$home/.config/chezmoi/chezmoi.toml"
  git init -q --bare -b main "$base/r.git"
  git -C "$theirs" init -q -b main
}
# source_file <file> <text>, own <kind> <path> <number>: skip what cannot be created
source_file() { mkdir -p "$theirs/$(dirname -- "$1")" && printf %s "$2" >"$theirs/$1"; }
push() {
  find "$theirs" -type d -empty -not -path '*/.git/*' -exec touch {}/.keep \;
  git -C "$theirs" add -A && git -C "$theirs" commit -q --allow-empty -m "$1" && git -C "$theirs" push -q "$base/r.git" HEAD:main
}
own() {
  local path=$home/$2 mark=U$3_
  case $1 in
    edit) if [ -f "$path" ]; then echo "$mark" >>"$path"; fi ;;
    text) [ -e "$path" ] || { mkdir -p "$(dirname -- "$path")" && echo "$mark" >"$path"; } ;;
    instead) rm -rf "$path"; echo "$mark" >"$path" ;;
    directory) [ -f "$path" ] && rm -f "$path"; mkdir -p "$path/k$mark" && echo "$mark" >"$path/x" ;;
    deep) mkdir -p "$path/sub" && echo "$mark" >"$path/sub/$mark" ;;
    link) [ -e "$path" ] || { mkdir -p "$home/elsewhere" && echo "$mark" >>"$home/elsewhere/x" && ln -s "$home/elsewhere" "$path"; } ;;
    moved) [ -d "$path" ] && [ ! -L "$path" ] && mv "$path" "$home/moved$mark" && ln -s "moved$mark" "$path" ;;
    dangling) ln -s "to-$mark" "$path" ;;
    fifo) mkdir -p "$path" && mkfifo "$path/$mark" ;;
    pipe) mkfifo "$path" ;;
    unreadable) [ -e "$path" ] || { echo "$mark" >"$path" && chmod 000 "$path"; } ;;
    closed) mkdir -p "$path/$mark" && echo "$mark" >"$path/$mark/x" && chmod 000 "$path/$mark" ;;
    readonly) [ -d "$path" ] && echo "$mark" >"$path/$mark" && chmod 555 "$path" ;;
    hard) [ -f "$path" ] && echo "$mark" >>"$path" && ln "$path" "$home/hard$mark" ;;
    mode) [ -e "$path" ] && chmod 750 "$path" ;;
    gone) rm -rf "$path" ;;
  esac
} 2>/dev/null
marks() { (
  cd "$home"
  find . -path ./.local/share/chezmoi/.git -prune -o -path ./.local/share/chezmoi/.jj -prune -o -perm 000 -print0 >"$base/closed"
  xargs -0r chmod 700 <"$base/closed"
  { find . -printf '%p %l\n'; grep -raohE --exclude-dir=.git --exclude-dir=.jj --exclude=status.json -D skip 'U[0-9]+_' .; } | grep -oaE 'U[0-9]+_' | sort -u
  xargs -0r chmod 000 <"$base/closed"
) }
# at <phase> <commands>: the user runs these commands while the next synchronization is in this phase
at() {
  { declare -f own marks; declare -p home base; echo "if [ \$1 = $1 ]; then : >$base/disturbed; $2"; echo 'marks >>"$base/made"; fi'; } >"$base/hook"
}
in_home() { (cd "$home" && HOME=$home "$@"); }
# Complains unless everything that the home had, and everything that was made there meanwhile, is still there.
whole() {
  complain "$1" lost "$(comm -23 <(sort -u "$base/made") <(marks))"
  : >"$base/made" >"$base/hook"
}
synchronize() { # <which>
  marks >>"$base/made"
  in_home env CHEZMOI_HOST=h CHEZMOI_REPO_URL="$base/r.git" CHEZMOI_LIMIT=20 CHEZMOI_STATE= \
    CHEZMOI_PHASE_HOOK="bash $base/hook" bash -euo pipefail "$agent" >"$base/said" 2>&1 </dev/null
  whole "$1"
  local status=$home/.local/state/chezmoi-sync/status.json outcome
  outcome=$(jq -r .outcome "$status")
  case $outcome in
    null) [ "$killed" ] || complain "$1" ended "$(tail -n 3 "$base/said")" ;;
    synced | up-to-date | failed | conflict) ;;
    *) complain "$1" ended "$outcome: $(tail -n 3 "$base/said")" ;;
  esac
  killed=
  counts[$outcome]=$((${'$'}{counts[$outcome]-0} + 1))
  # every difference from the source must be reported, except edits made after this run had looked
  local row='^[ ADMR][DM] /'
  if [ -e "$base/disturbed" ]; then row='^ [DM] /'; fi
  rm -f "$base/disturbed"
  if [[ $outcome == synced || $outcome == up-to-date ]] &&
    in_home timeout 20 chezmoi status --exclude=scripts --path-style=absolute >"$base/rows" 2>/dev/null </dev/null; then
    complain "$1" unnamed "$(jq -rR --slurp --arg home "$home/" --arg row "$row" --slurpfile status "$status" '
      [$status[0].kept[].file | split("\n")[0]] as $kept
      | [split("\n")[] | select(test($row)) | .[3:] | ltrimstr($home) | . as $row
        | select(all($kept[]; . as $each | $row != $each and ($row | startswith($each + "/") | not)))] | join(" ")' "$base/rows")"
  fi
}
complain() { # <which> <what> <evidence>
  if [ -n "$3" ]; then bad=yes; echo "BAD seed $seed, $1: $2: $3" | tr '\n' ' '; echo; fi
}
restore() {
  marks >>"$base/made"
  in_home bash -euo pipefail "$restorer" --all >"$base/said" 2>&1 </dev/null
  whole restored
}
finish() {
  if [ -z "$bad" ]; then
    chmod -R u+rwx "$base" 2>/dev/null
    rm -rf "$base"
  else
    echo "  left in $base"
  fi
  echo "DONE $seed"
}
declare -A counts=()
killed=
`

/** One round, as a script that follows the prelude. */
export function round(seed: number): string {
  const chance = chanceOf(seed)
  const one = <T>(of: readonly T[]): T => of[chance(of.length)]!
  const names = allNames.toSorted(() => chance(3) - 1).slice(0, 6)
  const places = placesOf(names)
  let mark = 0
  const own = (kinds: readonly string[], count: number, of: readonly string[] = places): string =>
    Array.from(
      { length: count },
      () => `own ${one(kinds)} ${quote(one(of))} ${seed % 1000}${++mark}`,
    ).join('\n')
  const first = ['text', 'text', 'directory', 'deep', 'link', 'dangling', 'fifo', 'unreadable']
  // only changes that remove nothing of the user's
  const meanwhile = ['edit', 'edit', 'text', 'deep', 'link', 'moved', 'fifo', 'hard', 'dangling']
  const later = [
    ...['edit', 'edit', 'edit', 'text', 'instead', 'directory', 'deep', 'link', 'moved', 'fifo'],
    ...['hard', 'mode', 'gone', 'closed', 'readonly', 'unreadable', 'dangling'],
    ...(chance(40) ? [] : ['pipe']),
  ]
  const top = chance(10) ? '' : 'top/'
  const inSource = names.map(([, name]) => `.local/share/chezmoi/${top}${name}`)
  const newInSource = `own text .local/share/chezmoi/${top}dot_own ${seed % 1000}${++mark}`
  const phases = ['capture', 'commit', 'fetch', 'rebase', 'push', 'publish', 'apply']
  const disturb = (): string => {
    if (!chance(12)) return `killed=yes; at ${one(phases)} 'kill -9 $PPID; exit'`
    return chance(3) ? '' : `at ${one(phases)} ${quote(own(meanwhile, 1 + chance(3)))}`
  }
  const state: State = { chance, names, top, made: () => `U${seed % 1000}${++mark}_` }
  return [
    `begin ${seed} ${chance(8) ? 'home' : 'real'}`,
    own(first, chance(5)),
    source(state, 1),
    'push one',
    disturb(),
    'synchronize first',
    own(later, 2 + chance(7)),
    own(['edit'], chance(4) ? 0 : 1 + chance(2), inSource),
    chance(6) ? '' : newInSource,
    'rm -rf "$theirs"/* "$theirs"/.chezmoi* "$theirs/.gitignore"',
    source(state, 2),
    'push two',
    disturb(),
    'synchronize second',
    own(later, chance(3)),
    disturb(),
    'synchronize third',
    'restore',
    'finish',
    '',
  ].join('\n')
}

interface State {
  chance: Chance
  names: Names
  /** The directory of the repository that is chezmoi's source. */
  top: string
  /** Returns a mark for a file that a script makes in the home. */
  made: () => string
}

/** Commands that write a source: the names with chezmoi's attributes, and chezmoi's special files. */
function source({ chance, names, top, made }: State, version: number): string {
  const places = placesOf(names)
  const one = <T>(of: readonly T[]): T => of[chance(of.length)]!
  const all: string[] = []
  const externals: string[] = []
  let count = 0
  const write = (path: string, text: string) =>
    all.push(`source_file ${quote(top + path)} ${text.startsWith('"$') ? text : quote(text)}`)
  // often the same text, so that only an attribute changes
  const text = (): string => (chance(3) ? lines(`s${version} ${++count}`) : 'same\n')
  const file = (into: string, name: string): void => {
    const put = (prefix: string, content: string, suffix = '') =>
      write(`${into}${prefix}${name}${suffix}`, content)
    const kinds: Array<() => unknown> = [
      () => put('', text()),
      () => put('', text()),
      () => put('private_', text()),
      () => put('executable_', text()),
      () => put('readonly_', text()),
      () => put('empty_', ''),
      () => put('', ''),
      () => put('', `{{ .chezmoi.os }} ${text()}`, '.tmpl'),
      () => put('', chance(4) ? `{{ .chezmoi.os }}${text()}` : '{{ fail "no" }}', '.tmpl'),
      () => put('create_', text()),
      () =>
        put('modify_', one(['#!/bin/sh\ngrep -vx more; echo more\n', '#!/bin/sh\necho other\n'])),
      () => put('symlink_', one(['elsewhere\n', '.a\n', 'nowhere\n'])),
      () => put('remove_', ''),
      () => put('private_executable_', text()),
      () => put('private_empty_', ''),
      () => put('create_private_', text()),
      () => put('create_', `{{ .chezmoi.os }} ${text()}`, '.tmpl'),
      () =>
        put(
          'modify_',
          '{{- /* chezmoi:modify-template */ -}}\n{{ .chezmoi.stdin | replace "more\\n" "" }}more\n',
        ),
      () => put('modify_private_', `#!/bin/sh\n${chance(4) ? 'cat; echo more' : 'exit 1'}\n`),
      () => put('symlink_', '{{ .chezmoi.homeDir }}/elsewhere\n', '.tmpl'),
      // one that no host can decrypt, and one that this host can
      () =>
        chance(3)
          ? write(`${into}encrypted_${one(['', 'private_'])}${name}.age`, '"$encrypted"')
          : put('encrypted_', 'no\n', '.age'),
    ]
    one(kinds)()
  }
  const directory = (into: string, name: string, depth: number): void => {
    const kind = one([
      ...['', '', 'exact_', 'exact_', 'exact_private_', 'private_', 'remove_', 'external_'],
      // chezmoi cannot write into it
      chance(6) ? '' : 'readonly_',
    ])
    const inside = `${into}${kind}${name}/`
    for (const child of below)
      if (chance(2))
        if (child === 'sub' && depth < 1) directory(inside, child, depth + 1)
        else if (kind === 'external_') write(`${inside}${child}`, text())
        else file(inside, child)
    write(`${inside}.keep`, '')
    if (!chance(8)) write(`${inside}.chezmoi${one(['ignore', 'remove'])}`, `${one(['k*', 'z'])}\n`)
  }
  const targets: string[] = []
  for (const [target, name] of names) {
    const choice = chance(6)
    if (choice) targets.push(target)
    switch (choice) {
      case 0:
        break
      case 1:
      case 2:
        directory('', name, 0)
        break
      case 3:
        if (!plain(target) || chance(3)) file('', name)
        else externals.push(target)
        break
      default:
        file('', name)
    }
  }
  for (const target of externals) {
    const origin = `$base/${version}${++count}`
    const type = one(['file', 'archive', 'archive', 'archive-file', 'git-repo'])
    const url = { file: `${origin}/x`, 'git-repo': `${origin}/.git` }[type] ?? `${origin}.tar`
    all.push(
      `mkdir -p ${origin} "$theirs/${top}"; echo external ${count} >${origin}/x; tar -cf ${origin}.tar -C ${origin} .`,
      type === 'git-repo'
        ? `git -C ${origin} init -q -b main; git -C ${origin} add x; git -C ${origin} commit -qm x`
        : '',
      `cat >>"$theirs/${top}.chezmoiexternal.toml" <<END
["${target}"]
type = "${type}"
url = "file://${url}"
${type === 'archive-file' ? 'path = "x"' : `exact = ${chance(2) === 0}`}
END`,
    )
  }
  // chezmoi rejects a pattern for something that the source has, or for a path below one of its files
  const patterns = (free: boolean): string => {
    const from = [...places.filter(plain), '.d/k*', '.d/**'].filter(
      (place) =>
        free ||
        !targets.some(
          (target) => `${place}/`.startsWith(`${target}/`) || target.startsWith(`${place}/`),
        ),
    )
    return Array.from({ length: 1 + chance(2) }, () => `${one(from)}\n`).join('')
  }
  if (!chance(2)) write('.chezmoiremove', patterns(!chance(8)))
  if (!chance(4)) write('.chezmoiignore', patterns(true))
  if (!chance(8))
    write('.chezmoiignore', `{{ if eq .chezmoi.os "linux" }}\n${patterns(true)}{{ end }}\n`)
  if (!chance(40)) write('.chezmoiignore.tmpl', '{{ fail "no" }}')
  if (!chance(30)) write('.chezmoi.toml.tmpl', '[data]\nx = 1\n')
  if (!chance(150)) write('.chezmoiversion', '99.0.0\n')
  for (let left = chance(3); left > 0; left--) {
    const script = `run_${one(['', 'once_', 'onchange_'])}${one(['', 'before_', 'after_'])}s${left}.sh`
    // quoted so that the mark itself does not occur in the source
    const mark = made().replace('_', '"_"')
    const place = `"$HOME/"${quote(one(places))}`
    const does = one([
      chance(8) ? '' : 'exit 1',
      `[ -d ${place} ] || { echo ${mark} >>${place} && echo ${mark} >>"$HOME/../made"; } 2>/dev/null; true`,
      `mkdir -p ${place}/${mark} 2>/dev/null && echo ${mark} >>"$HOME/../made"; true`,
    ])
    write(`${one(['', '.chezmoiscripts/'])}${script}`, `#!/bin/sh\n${does}\n`)
  }
  if (!chance(15)) all.push('echo dot_e >"$theirs/.gitignore"')
  if (top) all.push('echo top >"$theirs/.chezmoiroot"')
  return all.join('\n')
}

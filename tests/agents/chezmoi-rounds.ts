/**
 * Rounds of chance for the dotfile agent: a source in two states, over chezmoi's attributes, and a home with
 * things of its own, all as one bash script, since to enter the scratch root costs more than a round.
 *
 * What the user made has a mark `U<number>_` in it: in a text, in a name, or in what a link says. Every mark
 * that was in the home before a synchronization has to be there afterwards.
 */
import { lines, quote } from './dotfiles.ts'

type Chance = (below: number) => number

export function chanceOf(seed: number): Chance {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

/** Names that sources and homes have in common: as they are in a home, with what they are called in a source. */
const names = [
  ['.a', 'dot_a'],
  ['.b c', 'dot_b c'],
  ['.d', 'dot_d'],
  ['.e', 'dot_e'],
  ['f', 'f'],
  ['.n\nl', 'dot_n\nl'],
] as const
const below = ['x', 'y', 'sub'] as const
const places = names.flatMap(([name]) => [
  name,
  ...below.map((child) => `${name}/${child}`),
  `${name}/sub/z`,
])

/** Prints the functions that rounds are made of. $base is a directory of the round's own. */
export const prelude = String.raw`
set -u
export LC_ALL=C.UTF-8 GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=o GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=o@o
[ -e ~/age.key ] || age-keygen -o ~/age.key 2>/dev/null
recipient=$(age-keygen -y ~/age.key)
encrypted=$(echo encrypted | age -r "$recipient" -a)
begin() { # <seed>
  base=$(mktemp -d ~/round.XXXXXX) seed=$1 bad=
  home=$base/home theirs=$base/theirs
  mkdir -p "$home/.config/chezmoi" "$theirs"
  printf '%s\n' 'encryption = "age"' '[age]' "identity = \"$HOME/age.key\"" "recipient = \"$recipient\"" >"$home/.config/chezmoi/chezmoi.toml"
  git init -q --bare -b main "$base/r.git"
  git -C "$theirs" init -q -b main
}
# source <file> <text>, own <kind> <path> <number>: what cannot be made is not made
source_file() { mkdir -p "$theirs/$(dirname "$1")" && printf %s "$2" >"$theirs/$1"; }
push() {
  find "$theirs" -type d -empty -not -path '*/.git/*' -exec touch {}/.keep \;
  git -C "$theirs" add -A && git -C "$theirs" commit -q --allow-empty -m "$1" && git -C "$theirs" push -q "$base/r.git" HEAD:main
}
own() {
  local path=$home/$2 mark=U$3_
  case $1 in
    edit) if [ -f "$path" ]; then echo "$mark" >>"$path"; fi ;;
    text) [ -e "$path" ] || { mkdir -p "$(dirname "$path")" && echo "$mark" >"$path"; } ;;
    instead) rm -rf "$path"; echo "$mark" >"$path" ;;
    directory) [ -f "$path" ] && rm -f "$path"; mkdir -p "$path/k$mark" && echo "$mark" >"$path/x" ;;
    deep) mkdir -p "$path/sub" && echo "$mark" >"$path/sub/$mark" ;;
    link) [ -e "$path" ] || { mkdir -p "$home/elsewhere" && echo "$mark" >"$home/elsewhere/x" && ln -s "$home/elsewhere" "$path"; } ;;
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
  { find . -printf '%p %l\n'; grep -raohE --exclude-dir=.git --exclude-dir=.jj -D skip 'U[0-9]+_' .; } | grep -oaE 'U[0-9]+_' | sort -u
  xargs -0r chmod 000 <"$base/closed"
) }
in_home() { (cd "$home" && HOME=$home "$@"); }
synchronize() { # <which>
  local before after
  before=$(marks)
  in_home env CHEZMOI_HOST=h CHEZMOI_REPO_URL="$base/r.git" CHEZMOI_LIMIT=20 CHEZMOI_STATE= \
    bash -euo pipefail "$agent" >"$base/said" 2>&1 </dev/null
  after=$(marks)
  complain "$1" lost "$(comm -23 <(echo "$before") <(echo "$after"))"
  local status=$home/.local/state/chezmoi-sync/status.json outcome
  outcome=$(jq -r .outcome "$status")
  case $outcome in
    synced | up-to-date | failed | conflict) ;;
    *) complain "$1" ended "$outcome: $(tail -n 3 "$base/said")" ;;
  esac
  counts[$outcome]=$((${'$'}{counts[$outcome]-0} + 1))
  # whatever is not as the source says is named
  if [[ $outcome == synced || $outcome == up-to-date ]] &&
    in_home timeout 20 chezmoi status --exclude=scripts --path-style=absolute >"$base/rows" 2>/dev/null </dev/null; then
    complain "$1" unnamed "$(jq -rR --slurp --arg home "$home/" --slurpfile status "$status" '
      [$status[0].kept[].file | split("\n")[0]] as $kept
      | [split("\n")[] | select(test("^[ ADMR][DM] /")) | .[3:] | ltrimstr($home) | . as $row
        | select(all($kept[]; . as $each | $row != $each and ($row | startswith($each + "/") | not)))] | join(" ")' "$base/rows")"
  fi
}
complain() { # <which> <what> <evidence>
  if [ -n "$3" ]; then bad=yes; echo "BAD seed $seed, $1: $2: $3" | tr '\n' ' '; echo; fi
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
`

/** One round, as a script that follows the prelude. */
export function round(seed: number): string {
  const chance = chanceOf(seed)
  const one = <T>(of: readonly T[]): T => of[chance(of.length)]!
  let mark = 0
  const own = (kinds: readonly string[], count: number): string =>
    Array.from(
      { length: count },
      () => `own ${one(kinds)} ${quote(one(places))} ${seed % 1000}${++mark}`,
    ).join('\n')
  const first = ['text', 'text', 'directory', 'deep', 'link', 'dangling', 'fifo', 'unreadable']
  const later = [
    ...['edit', 'edit', 'edit', 'text', 'instead', 'directory', 'deep', 'link', 'moved', 'fifo'],
    ...['hard', 'mode', 'gone', 'closed', 'readonly', 'unreadable', 'dangling'],
    ...(chance(40) ? [] : ['pipe']),
  ]
  return [
    `begin ${seed}`,
    own(first, chance(5)),
    source(chance, 1),
    'push one; synchronize first',
    own(later, 2 + chance(7)),
    'rm -rf "$theirs"/* "$theirs"/.chezmoi*',
    source(chance, 2),
    'push two; synchronize second',
    own(later, chance(3)),
    'synchronize third',
    'finish',
    '',
  ].join('\n')
}

/** Commands that write a source: chezmoi's attributes over the names, and its special files. */
function source(chance: Chance, version: number): string {
  const one = <T>(of: readonly T[]): T => of[chance(of.length)]!
  const all: string[] = []
  const externals: string[] = []
  let count = 0
  const write = (path: string, text: string) =>
    all.push(`source_file ${quote(path)} ${text.startsWith('"$') ? text : quote(text)}`)
  const text = (): string => lines(`s${version} ${++count}`)
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
      () => put('', chance(3) ? `{{ .chezmoi.os }}${text()}` : '{{ fail "no" }}', '.tmpl'),
      () => put('create_', text()),
      () =>
        put('modify_', one(['#!/bin/sh\ngrep -vx more; echo more\n', '#!/bin/sh\necho other\n'])),
      () => put('symlink_', one(['elsewhere\n', '.a\n', 'nowhere\n'])),
      () => put('remove_', ''),
      // one that nobody can read, and one that this host can
      () =>
        chance(3)
          ? write(`${into}encrypted_${name}.age`, '"$encrypted"')
          : put('encrypted_', 'no\n', '.age'),
    ]
    one(kinds)()
  }
  const directory = (into: string, name: string, depth: number): void => {
    const kind = one(['', '', 'exact_', 'exact_', 'private_', 'remove_', 'external_'])
    const inside = `${into}${kind}${name}/`
    for (const child of below)
      if (chance(2))
        if (child === 'sub' && depth < 1) directory(inside, child, depth + 1)
        else if (kind === 'external_') write(`${inside}${child}`, text())
        else file(inside, child)
    write(`${inside}.keep`, '')
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
        if (target.includes('\n') || chance(3)) file('', name)
        else externals.push(target)
        break
      default:
        file('', name)
    }
  }
  for (const target of externals) {
    const made = `$base/${version}${++count}`
    const archive = chance(2) === 0
    all.push(
      `mkdir ${made}; echo external ${count} >${made}/x; tar -cf ${made}.tar -C ${made} .`,
      `cat >>"$theirs/.chezmoiexternal.toml" <<END
["${target}"]
type = "${archive ? 'archive' : 'file'}"
url = "file://${archive ? `${made}.tar` : `${made}/x`}"
exact = ${archive && chance(2) === 0}
END`,
    )
  }
  // a pattern for what the source has, or for what is below a file of it, is an error to chezmoi
  const patterns = (free: boolean): string => {
    const from = [...places, '.d/k*'].filter(
      (place) =>
        !place.includes('\n') &&
        (free ||
          !targets.some(
            (target) => `${place}/`.startsWith(`${target}/`) || target.startsWith(`${place}/`),
          )),
    )
    return Array.from({ length: 1 + chance(2) }, () => `${one(from)}\n`).join('')
  }
  if (!chance(2)) write('.chezmoiremove', patterns(!chance(8)))
  if (!chance(4)) write('.chezmoiignore', patterns(true))
  if (!chance(12)) write('.chezmoiignore.tmpl', '{{ fail "no" }}')
  if (!chance(4))
    write(
      `run_${one(['', 'once_', 'onchange_'])}${one(['', 'before_', 'after_'])}s.sh`,
      '#!/bin/sh\n',
    )
  return all.join('\n')
}

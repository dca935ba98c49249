# shellcheck shell=bash
# shellcheck disable=SC2154 # chezmoi-state.sh and chezmoi-ask.sh come first
# Shows each dotfile that was edited on two hosts so that the edits conflict, with both edits. Reads
# bookmarks `conflict/<host>` of the remote, so it shows the same on every host, and this host's own
# commits. `--offline` does not contact the remote, and shows what the last fetch brought.

branch=${CHEZMOI_BRANCH:-main}
host=${CHEZMOI_HOST:-$(uname -n)}
trunk=refs/remotes/origin/$branch
export GIT_TERMINAL_PROMPT=0 GIT_LITERAL_PATHSPECS=1 LC_ALL=C.UTF-8

case ${1:-} in
  '') offline='' ;;
  --offline) offline=yes ;;
  *) echo 'Usage: chezmoi-show-conflicts [--offline]' >&2 && exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$(ask_chezmoi "$limit" said source-path) || { cat "$work/said" >&2 && exit 1; }
cd "$root" 2>/dev/null || { echo "No dotfiles at $root" && exit 0; }
cd "$(git rev-parse --show-toplevel)" || exit
below=$(realpath --relative-to=. "$root")
printf -v here %q "$PWD"

# jj must not touch the state of a synchronization that has not ended: the next one restores it
if [[ -z $offline && -e $state/step ]]; then
  echo '(a synchronization has not ended: this is as of its fetch)'
elif [[ -z $offline ]] && ! timeout --kill-after=5 "${CHEZMOI_NETWORK_LIMIT:-60}" jj --no-pager --quiet \
  --config=git.abandon-unreachable-commits=false git fetch --remote origin --branch 'glob:*' </dev/null 2>/dev/null; then
  echo '(the remote cannot be reached: this is as of the last fetch)'
fi

# <host> <commit> <commits to merge, for jj>
show() {
  local base file files=() encrypted=() home=''
  if is_home "$1" "$2" && ! is_former "$2"; then home=yes; fi
  # without a common commit, each side has added all its files
  base=$(git merge-base "$2" "$trunk") || base=$(git hash-object -t tree /dev/null)
  conflicting "$(git rev-parse "$2")" "$(git rev-parse "$trunk")"
  if ((!${#files[@]})); then
    # changes that are only not merged yet are no conflict
    if [[ $2 == HEAD && -z $told ]]; then return; fi
    # no line conflicts, but chezmoi refuses the merged files, as with two different permissions
    mapfile -d '' -t files < <(git diff --name-only -z "$base" "$2")
  fi
  for file in "${files[@]}"; do
    echo "conflict: $file"
    echo "  on $1, not in the trunk ($(git log -1 --format=%h "$2")):"
    side "$base" "$2" "$file"
    echo "  in the trunk ($(git log -1 --format='%h, %s' "$trunk" -- "$file")):"
    side "$base" "$trunk" "$file"
    if is_encrypted "$file"; then encrypted+=("$file"); fi
  done
  # an edit at home conflicts with any text that replaces the source's, so it is settled there
  if [[ -n $home && $1 != "$host" ]]; then
    echo "  To settle it: chezmoi-show-conflicts on $1, where it was edited at home, says how"
  elif [[ -n $home ]]; then
    for file in "${files[@]}"; do
      # by chezmoi's own name for the source, which may be a link
      settle_at_home "$(ask_chezmoi "$limit" said target-path "$root/${file#"$below/"}")"
    done
  elif [[ -z $3 ]]; then
    echo "  To settle it: cd $here && jj commit (or jj restore, to take the trunk's text), then chezmoi-sync"
  elif ((!${#encrypted[@]})); then
    note_uncommitted
    echo "  To settle it: cd $here && jj new $3, edit the files until jj status lists no conflict, then chezmoi-sync"
  else
    note_uncommitted
    echo "  To settle it: cd $here && jj new $3, then"
    for file in "${encrypted[@]}"; do settle_encrypted "$2" "$file"; done
    echo "    edit other files until jj status lists no conflict, then chezmoi-sync"
  fi
  found=yes
}
# `jj new` leaves uncommitted edits behind in a commit that no one looks at.
note_uncommitted() {
  local by=chezmoi-sync
  if [[ -z $(git status --porcelain --untracked-files=normal) ]]; then return; fi
  if [[ ${CHEZMOI_AUTO_COMMIT:-true} != true ]]; then by='jj commit'; fi
  echo "  First: $by, as uncommitted edits in $here would be left behind"
}
# Whether an earlier clone of its host published it, of which the present one knows nothing: any host settles it.
is_former() { # <ref>
  case $1 in
    refs/remotes/origin/conflict/*.former-*) ;;
    "refs/remotes/origin/conflict/$host" | "refs/remotes/origin/conflict/$host.home") ! is_own "$1" ;;
    *) return 1 ;;
  esac
}
# by the list of commits that chezmoi-sync has published
is_own() { # <ref>
  local commit
  commit=$(git rev-parse --verify --quiet "$1") &&
    { grep --quiet --no-messages --line-regexp "$commit" "$(git rev-parse --git-path chezmoi-sync-published)" || git merge-base --is-ancestor "$1" HEAD; }
}
# Leaves the files in which two commits conflict in `files`. Where one commit has a directory in place of a file,
# git names the file `<file>~<commit>`.
conflicting() { # <commit> <commit>
  local file
  while IFS= read -rd '' file; do
    file=${file%"~$1"}
    files+=("${file%"~$2"}")
  done < <(git -c merge.renames=false merge-tree --write-tree --name-only --no-messages -z "$1" "$2" 2>/dev/null | tail -zn +2)
}
side() {
  if is_encrypted "$3"; then
    echo '    (encrypted)'
    return
  fi
  # in git's own format, whatever diff tool this user has configured
  git diff --no-ext-diff --no-textconv --no-color --no-renames "$1" "$2" -- "$3" | sed -E '1,/^@@/{/^(diff|index|--- |\+\+\+ )/d}; /^@@/d; s/^/    /'
}
is_encrypted() { [[ ${1##*/} == *.age || ${1##*/} == *.asc || ${1##*/} == encrypted_* || ${1##*/} == *_encrypted_* ]]; }
# Two ciphertexts cannot be merged by lines, so the user merges both texts and encrypts the result.
settle_encrypted() { # <commit> <file>
  local commit trunk_commit name
  commit=$(git rev-parse --short "$1") trunk_commit=$(git rev-parse --short "$trunk")
  printf -v name %q "$2"
  echo "    compare both texts of $2, where its key is:"
  echo "      diff <(git show $commit:$name | chezmoi decrypt) <(git show $trunk_commit:$name | chezmoi decrypt)"
  echo "    and take one side:   git show $commit:$name >$name   (or $trunk_commit:$name)"
  echo "    or write both into a file and encrypt it:   chezmoi encrypt <file> >$name"
}
# By the message that chezmoi-sync writes, as its parent may be the trunk itself.
is_home() { [[ $(git log -1 --format=%s "$2") == "Home of $1, in conflict" ]]; } # <host> <commit>
settle_at_home() { # <file at home>
  local file
  shown["$1"]=yes
  printf -v file %q "$1"
  echo "  To settle it: chezmoi merge $file, or chezmoi re-add $file for the text at home, or"
  echo "    chezmoi apply --force $file for the trunk's text, then chezmoi-sync"
}
# An edit at home without a commit, because that would be in the clear, or because nothing is pushed.
show_at_home() { # <target>
  local file
  if [[ -n ${shown["$HOME/$1"]-} ]]; then return; fi
  printf -v file %q "$HOME/$1"
  echo "conflict: $1"
  echo "  on $host, at home, in no commit (chezmoi diff $file shows it)"
  settle_at_home "$HOME/$1"
  found=yes
}

# whether the last synchronization reported a conflict of this host
told=$(jq --raw-output --arg host "$host" '.conflicts[]? | select(.host == $host) | "yes"' "$state/status.json" 2>/dev/null || true)
found=''
declare -A shown=()
if git rev-parse --verify --quiet "$trunk" >/dev/null; then
  own=refs/heads/conflict/$host
  is_own "$own" || own=HEAD
  if ! git merge-base --is-ancestor "$own" "$trunk" &&
    { is_home "$host" "$own" || ! git merge-base --is-ancestor "$trunk" "$own"; }; then
    show "$host" "$own" "@- $branch@origin"
  elif [[ -n $told ]]; then
    # edits that the user has not committed yet
    copy=$(jj --no-pager --color=never --ignore-working-copy log --no-graph --revisions @ --template commit_id)
    files=()
    conflicting "$copy" "$(git rev-parse "$trunk")"
    if ((${#files[@]})); then show "$host" "$copy" ''; fi
  fi
  # an edit at home that conflicts in addition to a commit
  if is_own "refs/heads/conflict/$host.home"; then show "$host" "refs/heads/conflict/$host.home" ''; fi
  while IFS= read -r ref; do
    name=${ref#refs/remotes/origin/}
    whose=${name#conflict/}
    whose=${whose%.former-*}
    whose=${whose%.home}
    if { [[ $whose == "$host" ]] && ! is_former "$ref"; } || git merge-base --is-ancestor "$ref" "$trunk"; then continue; fi
    show "$whose" "$ref" "@- $name@origin"
  done < <(git for-each-ref --format='%(refname)' refs/remotes/origin/conflict/)
fi
# by the reason that chezmoi-sync gives
while IFS= read -rd '' target; do
  show_at_home "$target"
done < <(jq -j '.kept[]? | select(.reason == "edited here and in the source") | .file + "\u0000"' "$state/status.json" 2>/dev/null || true)
if [[ -z $found ]]; then echo 'No conflicts'; fi

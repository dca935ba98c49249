# shellcheck shell=bash
# Names each dotfile that was edited on two hosts so that the edits conflict, with both edits. Reads
# bookmarks `conflict/<host>` of the remote, so it shows the same on every host, and this host's own
# commits. `--offline` asks nobody and shows what the last fetch brought.

branch=${CHEZMOI_BRANCH:-main}
host=${CHEZMOI_HOST:-$(uname -n)}
trunk=refs/remotes/origin/$branch
export GIT_TERMINAL_PROMPT=0 LC_ALL=C.UTF-8

case ${1:-} in
  '') offline='' ;;
  --offline) offline=yes ;;
  *) echo 'Usage: chezmoi-show-conflicts [--offline]' >&2 && exit 2 ;;
esac
root=$(chezmoi source-path)
cd "$root" 2>/dev/null || { echo "No dotfiles at $root" && exit 0; }
cd "$(git rev-parse --show-toplevel)" || exit

if [[ -z $offline ]] && ! timeout --kill-after=5 "${CHEZMOI_NETWORK_LIMIT:-60}" jj --no-pager --quiet \
  --config=git.abandon-unreachable-commits=false git fetch --remote origin </dev/null 2>/dev/null; then
  echo '(the remote cannot be reached: this is as of the last fetch)'
fi

# <host> <commit> <commits to bring together, for jj>
show() {
  local base file files=()
  base=$(git merge-base "$2" "$trunk") || return 0
  mapfile -t files < <(git -c merge.renames=false merge-tree --write-tree --name-only --no-messages \
    "$2" "$trunk" 2>/dev/null | tail -n +2)
  # no line conflicts, but together chezmoi refuses them, as with two kinds of permissions
  if ((!${#files[@]})); then mapfile -t files < <(git diff --name-only "$base" "$2"); fi
  for file in "${files[@]}"; do
    echo "conflict: $file"
    echo "  on $1, not in the trunk ($(git log -1 --format=%h "$2")):"
    side "$base" "$2" "$file"
    echo "  in the trunk ($(git log -1 --format='%h, %s' "$trunk" -- "$file")):"
    side "$base" "$trunk" "$file"
  done
  echo "  To settle it: cd $PWD && jj new $3, edit the files until jj status lists no conflict, then chezmoi-sync"
  found=yes
}
side() { git diff --no-renames "$1" "$2" -- "$3" | sed -E '/^(diff|index|--- |\+\+\+ |@@)/d; s/^/    /'; }

found=''
if git rev-parse --verify --quiet "$trunk" >/dev/null; then
  own=refs/heads/conflict/$host
  git rev-parse --verify --quiet "$own" >/dev/null || own=HEAD
  if ! git merge-base --is-ancestor "$own" "$trunk" && ! git merge-base --is-ancestor "$trunk" "$own"; then
    show "$host" "$own" "@- $branch@origin"
  fi
  while IFS= read -r ref; do
    whose=${ref#refs/remotes/origin/conflict/}
    if [[ $whose == "$host" ]] || git merge-base --is-ancestor "$ref" "$trunk"; then continue; fi
    show "$whose" "$ref" "@- conflict/$whose@origin"
  done < <(git for-each-ref --format='%(refname)' refs/remotes/origin/conflict/)
fi
if [[ -z $found ]]; then echo 'No conflicts'; fi

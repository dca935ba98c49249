# shellcheck shell=bash
# shellcheck disable=SC2154 # chezmoi-state.sh and chezmoi-kept.sh come first
# Files that synchronizations of dotfiles put aside before the source overwrote them. Without an argument they are
# listed; with files, or `--all`, the newest copy of each is put back. A file that is there by then is put aside, too.

kept=$state/kept
declare -A newest=() times=()
while IFS= read -rd '' copy; do
  copy=${copy#"$kept/"}
  newest["/${copy#*/}"]=$kept/$copy
  times["/${copy#*/}"]=${copy%%/*}
done < <(find "$kept" -mindepth 2 ! -type d -print0 2>/dev/null | LC_ALL=C sort -z)

case ${1:-} in
  --help) echo 'Usage: chezmoi-restore-kept [--all | <file>...]' && exit 0 ;;
  --all)
    # in the order of time, as one may be in the place of another's directory
    mapfile -d '' -t copies < <(((!${#newest[@]})) || printf '%s\0' "${newest[@]}" | LC_ALL=C sort -z)
    set --
    for copy in "${copies[@]}"; do copy=${copy#"$kept/"} && set -- "$@" "/${copy#*/}"; done
    ;;
  -*) echo 'Usage: chezmoi-restore-kept [--all | <file>...]' >&2 && exit 2 ;;
  '')
    if ((!${#newest[@]})); then echo 'Nothing was put aside'; fi
    for target in "${!newest[@]}"; do printf '%s  %q\n' "${times["$target"]}" "${target#/}"; done | sort
    exit 0
    ;;
  *)
    # a path relative to the home, relative to the current directory, or absolute
    files=()
    for file; do
      # a file may now be where a directory was
      if [[ -z ${newest["/$file"]-} ]]; then
        file=$(realpath --canonicalize-missing --no-symlinks -- "$file")
        # where the home is a link, a relative path leads to the link's target
        file=${file#"$HOME/"} file=${file#"$(realpath "$HOME")/"}
      fi
      files+=("/$file")
    done
    set -- "${files[@]}"
    ;;
esac

for target; do
  if [[ -z ${newest["$target"]-} ]]; then
    echo "Nothing was put aside of \`${target#/}\` (chezmoi-restore-kept lists what was)" >&2
    exit 1
  fi
done

# Moves a file that is in the way to a new place.
put_aside() { # <path below the home, with a slash before it>
  new_place "$kept"
  mkdir -p "$REPLY${1%/*}"
  mv -T "$HOME$1" "$REPLY$1"
}
is_in_the_way() { [[ (-e $HOME$1 || -L $HOME$1) && ! -d $HOME$1 ]]; }

for target; do
  copy=${newest["$target"]} file=$HOME$target
  if [[ -f $file && ! -L $file && -f $copy && ! -L $copy ]] && cmp -s "$copy" "$file"; then continue; fi
  above='' below=${target#/}
  while [[ $below == */* ]]; do
    above+=/${below%%/*} below=${below#*/}
    if is_in_the_way "$above"; then put_aside "$above"; fi
  done
  mkdir -p "${file%/*}"
  # copied in full before anything else moves, in a directory of a name that no other file has
  part=$(mktemp -d "${file%/*}/.restored.XXXXXX")
  cp --archive --no-target-directory "$copy" "$part/file"
  if [[ -e $file || -L $file ]]; then put_aside "$target"; fi
  mv --no-target-directory --no-clobber "$part/file" "$file"
  rmdir "$part"
  echo "Put back: ${target#/} (of ${times["$target"]})"
done

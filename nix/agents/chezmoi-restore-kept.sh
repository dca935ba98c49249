# shellcheck shell=bash
# What synchronizations of dotfiles put aside before the source wrote over it. Without an argument it is
# listed; with files, or `--all`, the newest copy of each is put back. What is there by then is put aside in turn.

state=${CHEZMOI_STATE:-}
if [[ -z $state || ! -w $state ]]; then state=${XDG_STATE_HOME:-$HOME/.local/state}/chezmoi-sync; fi
kept=$state/kept
declare -A newest=() times=()
while IFS= read -rd '' copy; do
  copy=${copy#"$kept/"}
  newest["/${copy#*/}"]=$kept/$copy
  times["/${copy#*/}"]=${copy%%/*}
done < <(find "$kept" -mindepth 2 ! -type d -print0 2>/dev/null | sort -z)

case ${1:-} in
  --help) echo 'Usage: chezmoi-restore-kept [--all | <file>...]' && exit 0 ;;
  --all) set -- "${!newest[@]}" ;;
  -*) echo 'Usage: chezmoi-restore-kept [--all | <file>...]' >&2 && exit 2 ;;
  '')
    if ((!${#newest[@]})); then echo 'Nothing was put aside'; fi
    for target in "${!newest[@]}"; do printf '%s  %q\n' "${times["$target"]}" "${target#/}"; done | sort
    exit 0
    ;;
  *)
    # a path from the home, from where it is typed, or in full
    files=()
    for file; do
      if [[ -z ${newest["/$file"]-} ]]; then file=$(realpath --no-symlinks --relative-to="$HOME" -- "$file"); fi
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
TZ=UTC printf -v now '%(%FT%TZ)T' -1
for target; do
  copy=${newest["$target"]} file=$HOME$target
  if [[ -e $file || -L $file ]]; then
    if [[ -f $file && ! -L $file ]] && cmp -s "$copy" "$file"; then continue; fi
    mkdir -p "$(dirname "$kept/$now$target")"
    mv -T "$file" "$kept/$now$target"
  fi
  mkdir -p "$(dirname "$file")"
  cp -dp "$copy" "$file.restored"
  mv -T "$file.restored" "$file"
  echo "Put back: ${target#/} (of ${times["$target"]})"
done

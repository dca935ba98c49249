# shellcheck shell=bash
# shellcheck disable=SC2154 # chezmoi-state.sh and chezmoi-ask.sh come first
# How the last synchronization of dotfiles ended, and what has been edited since. `--json` prints the
# status file unchanged, or `null` where there is none.

case ${1:-} in
  '' | --json) ;;
  *) echo 'Usage: chezmoi-status [--json]' >&2 && exit 2 ;;
esac
if [[ ! -r $state/status.json ]]; then
  # a program that asks for JSON needs JSON here as well
  if [[ -n ${1:-} ]]; then echo null; else echo 'Dotfiles have not been synchronized yet'; fi
  exit 0
fi
if [[ -n ${1:-} ]]; then exec cat "$state/status.json"; fi

jq -r '
  "outcome:  \(.outcome // "running, phase \(.phase)")\(if .reason then ": \(.reason)" else "" end)",
  "when:     \(.finished // .started)",
  "trunk:    \(.to // "none")",
  ((.kept // [])[] | "kept:     \(.file | gsub("\n"; "\\n")) (\(.reason))"),
  ((.conflicts // [])[] | "conflict: \(.files | join(", ")) of \(.host) (see chezmoi-show-conflicts)")
' "$state/status.json"

if [[ -d $state/kept ]]; then
  count=$(find "$state/kept" -mindepth 2 ! -type d -printf . | wc -c)
  if ((count)); then echo "aside:    $count files were put aside (chezmoi-restore-kept lists them and puts them back)"; fi
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
edited=''
if ! root=$(ask_chezmoi "$limit" said source-path) ||
  { [[ -d $root ]] && ! edited=$(ask_chezmoi "$limit" said status --no-tty); }; then edited=$(<"$work/said"); fi
if [[ -n $edited ]]; then printf 'edited:   %s\n' "${edited//$'\n'/$'\n'edited:   }"; fi

# shellcheck shell=bash
# What the last synchronization of dotfiles came to, and what has been edited since. `--json` prints the
# status file as it is.

state=${CHEZMOI_STATE:-}
if [[ ! -O $state ]]; then state=${XDG_STATE_HOME:-$HOME/.local/state}/chezmoi-sync; fi
if [[ ! -r $state/status.json ]]; then
  echo 'Dotfiles have not been synchronized yet'
  exit 0
fi
case ${1:-} in
  '') ;;
  --json) exec cat "$state/status.json" ;;
  *) echo 'Usage: chezmoi-status [--json]' >&2 && exit 2 ;;
esac

jq -r '
  "outcome:  \(.outcome // "running, phase \(.phase)")\(if .reason then ": \(.reason)" else "" end)",
  "when:     \(.finished // .started)",
  "trunk:    \(.to // "none")",
  ((.kept // [])[] | "kept:     \(.file | gsub("\n"; "\\n")) (\(.reason))"),
  ((.conflicts // [])[] | "conflict: \(.files | join(", ")) of \(.host) (see chezmoi-show-conflicts)")
' "$state/status.json"

if [[ -d $state/kept ]]; then
  count=$(find "$state/kept" -mindepth 2 ! -type d -printf . | wc -c)
  if ((count)); then echo "aside:    $count files of before (chezmoi-restore-kept lists them and puts them back)"; fi
fi
if [[ -d $(chezmoi source-path) ]]; then
  edited=$(chezmoi status --no-tty </dev/null 2>&1 || true)
  if [[ -n $edited ]]; then printf 'edited:   %s\n' "${edited//$'\n'/$'\n'edited:   }"; fi
fi

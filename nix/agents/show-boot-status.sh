# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# show-boot-status [--json]: what was booted, what runs, what boots next, and how trials ended.

case ${1-} in
  '' | --json) ;;
  *) echo 'Usage: show-boot-status [--json]' >&2 && exit 2 ;;
esac
booted=$(booted_system)
running=$(readlink -f /run/current-system || true)
system=$(readlink -f "$profile" || true)
golden=$(field golden.json toplevel)
trial=$(field trial.json toplevel)
default=$(efi_variable LoaderEntryDefault)
oneshot=$(efi_variable LoaderEntryOneShot)
validation=$(systemctl show --property=Result,ActiveState --value golden-boot-validation.service | paste -s -d ' ') ||
  validation='systemd does not answer'
if [[ ${1-} == --json ]]; then
  failed=$(tail -n 1 "$state/failed" 2>/dev/null || true)
  jq --null-input --compact-output '$ARGS.named | map_values(if . == "" then null else . end)' \
    --arg booted "$booted" --arg running "$running" --arg profile "$system" --arg golden "$golden" \
    --arg goldenEntry "$(field golden.json entry)" --arg pinnedAt "$(field golden.json pinnedAt)" \
    --arg trial "$trial" --arg trialState "$(field trial.json state)" --arg default "$default" \
    --arg oneshot "$oneshot" --arg lastFailed "$failed" --arg validation "$validation"
  exit 0
fi
what() { # what <toplevel>: the path with its roles
  local is=''
  [[ -z $1 || $1 != "$golden" ]] || is+=', golden'
  [[ -z $1 || $1 != "$trial" ]] || is+=', on trial'
  echo "${1:-none}${is:+ (${is#, })}"
}
echo "booted:       $(what "$booted")"
echo "running:      $(what "$running")"
echo "profile:      $(what "$system")"
echo "golden:       ${golden:-none}"
echo "boot default: ${default:-chosen by the boot loader}"
echo "next boot:    ${oneshot:-the default}"
echo "validation:   $validation"
if [[ -s $state/failed ]]; then
  echo 'failed trials:'
  tail -n 5 "$state/failed" | sed 's/^/  /'
fi

# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# Which generation is golden, and whether it could be booted. Fails when none is, or it could not.

[[ $# -eq 0 ]] || { echo 'Usage: show-golden' >&2 && exit 2; }
golden=$(field golden.json toplevel)
[[ -n $golden ]] || fail 'no generation is golden'
entry=$(field golden.json entry)
echo "golden: $golden"
echo "pinned: $(field golden.json pinnedAt)"
echo "entry:  $entry"
problems=()
[[ $(readlink "$gcroot") == "$golden" ]] || problems+=("$gcroot does not keep it")
[[ -e $golden/init ]] || problems+=('it is not in the store')
[[ $(efi_variable LoaderEntryDefault) == "$entry" ]] || problems+=('it is not the boot default')
if [[ ! -r $entries ]]; then
  echo "files:  only root may look at $GOLDEN_BOOT"
elif [[ ! -s $entries/$entry ]]; then
  problems+=("$entries/$entry is missing")
elif [[ -e $golden/init ]]; then
  # what is not in the store is nothing to compare with
  reason=$(unloadable "$golden" "$entries/$entry")
  [[ -z $reason ]] || problems+=("$reason")
fi
for problem in "${problems[@]}"; do echo "PROBLEM $problem"; done
[[ ${#problems[@]} -eq 0 ]]

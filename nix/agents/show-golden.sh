# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# Prints which generation is golden, and whether it can boot. Fails when there is none, or when it cannot.

[[ $# -eq 0 ]] || { echo 'Usage: show-golden' >&2 && exit 2; }
golden=$(field golden.json toplevel)
[[ -n $golden ]] || fail 'no generation is golden'
entry=$(field golden.json entry)
echo "golden: $golden"
echo "pinned: $(field golden.json pinnedAt)"
echo "entry:  $entry"
problems=()
[[ $(readlink "$gcroot") == "$golden" ]] || problems+=("$gcroot does not keep it from garbage collection")
[[ -e $golden/init ]] || problems+=('it is not in the store')
[[ $(efi_variable LoaderEntryDefault) == "$entry" ]] || problems+=('it is not the boot default')
if [[ ! -r $entries ]]; then
  echo "files:  not checked, as only root may read $GOLDEN_BOOT"
elif [[ ! -s $entries/$entry ]]; then
  problems+=("$entries/$entry is missing")
elif [[ -e $golden/init ]]; then
  # there is nothing to compare with if it is not in the store
  reason=$(unloadable "$golden" "$entries/$entry")
  [[ -z $reason ]] || problems+=("$reason")
fi
for problem in "${problems[@]}"; do echo "PROBLEM $problem"; done
[[ ${#problems[@]} -eq 0 ]]

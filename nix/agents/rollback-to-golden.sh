# shellcheck shell=bash
# shellcheck disable=SC2154 # golden-lib.sh comes first
# rollback-to-golden [--reboot]: makes golden the system profile and switches to it, live or by a reboot.

case ${1-} in
  '' | --reboot) ;;
  *) echo 'Usage: rollback-to-golden [--reboot]' >&2 && exit 2 ;;
esac
need_root 'go back to the golden generation'
mend_state
golden=$(field golden.json toplevel)
[[ -n $golden ]] || fail 'Cannot go back: no generation is golden'
[[ -e $golden/init ]] || fail "Cannot go back: $golden is not in the store"
profile_to_golden || fail "Cannot go back: golden could not be made the boot loader's default"
if [[ ${1-} == --reboot ]]; then
  echo "rebooting into $golden"
  systemctl --no-block reboot
  exit 0
fi
if ! "$golden/bin/switch-to-configuration" test; then
  # for example where NixOS requires a boot for the change
  [[ /run/current-system -ef $golden ]] ||
    fail "Cannot go back at once: $golden could not be switched to, but boots next time (\`rollback-to-golden --reboot\` does that now)"
  fail "Cannot go back: $golden runs, but the switch to it has failed in part"
fi
echo "running: $golden"
for file in kernel initrd kernel-params; do
  if [[ $(readlink -f "$golden/$file") != "$(readlink -f "/run/booted-system/$file")" ]] &&
    ! cmp -s "$golden/$file" "/run/booted-system/$file"; then
    echo "its $file takes effect only after a reboot"
  fi
done

# shellcheck shell=bash
# Waking up from hibernation also runs the boot loader, which clears the one-shot as it reads it. The trial is armed
# again, because the boot that goes on is the one that armed it.
[[ $(field trial.json state) == armed && $(field trial.json boot) == "$(this_boot)" ]] || exit 0
[[ -z $(efi_variable LoaderEntryOneShot) ]] || exit 0
locked
bootctl set-oneshot "$(field trial.json entry)"
echo "on trial again at the next boot: $(field trial.json toplevel)"

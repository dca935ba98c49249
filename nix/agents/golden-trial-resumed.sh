# shellcheck shell=bash
# The boot loader is run to wake up from the disk as well, and takes the one-shot back as it reads it: what was on trial
# is so again, as the boot that goes on is the one that armed it.
[[ $(field trial.json state) == armed && $(field trial.json boot) == "$(this_boot)" ]] || exit 0
[[ -z $(efi_variable LoaderEntryOneShot) ]] || exit 0
locked
bootctl set-oneshot "$(field trial.json entry)"
echo "on trial again at the next boot: $(field trial.json toplevel)"

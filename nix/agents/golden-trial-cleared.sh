# shellcheck shell=bash
# At shutdown: a trial that was armed in this boot, and whose one-shot is gone or belongs to another entry, will
# not be started. The next boot could not tell that from a trial that panicked.
[[ $(field trial.json state) == armed && $(field trial.json boot) == "$(this_boot)" ]] || exit 0
[[ $(efi_variable LoaderEntryOneShot) != "$(field trial.json entry)" ]] || exit 0
locked
set_trial_state cleared
echo "the next boot is not the trial of $(field trial.json toplevel): its one-shot entry was cleared"

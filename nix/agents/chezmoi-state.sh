# shellcheck shell=bash
# The state directory of the sync, for every program that reads it: the unit's, if that belongs to this user.

state=${CHEZMOI_STATE:-}
if [[ ! -O $state || ! -w $state ]]; then state=${XDG_STATE_HOME:-$HOME/.local/state}/chezmoi-sync; fi

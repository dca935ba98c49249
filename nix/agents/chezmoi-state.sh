# shellcheck shell=bash
# Where the sync keeps what it remembers, for every program that reads it: in the unit's place if that is this user's.

state=${CHEZMOI_STATE:-}
if [[ ! -O $state || ! -w $state ]]; then state=${XDG_STATE_HOME:-$HOME/.local/state}/chezmoi-sync; fi

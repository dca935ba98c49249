# shellcheck shell=bash
# Upgrade of this host from its repository. So far this agent only looks and reports: it changes nothing,
# and its outcome is "skipped". Settings come as UPGRADE_* from the unit's wrapper.

state=${STATE_DIRECTORY:-/var/lib/nix-local-upgrade}
started=$(date --utc +%Y-%m-%dT%H:%M:%SZ)

# Written beside and renamed, so that a reader never sees half a status.
report() { # report <outcome> <reason>
  jq --null-input --arg outcome "$1" --arg reason "$2" --arg started "$started" \
    --arg finished "$(date --utc +%Y-%m-%dT%H:%M:%SZ)" --arg mode "$UPGRADE_MODE" --arg host "$UPGRADE_HOST" \
    --arg running "$(readlink /run/current-system || true)" \
    '{phase: "start", outcome: $outcome, reason: $reason, host: $host, mode: $mode, running: $running,
      started: $started, finished: $finished}' >"$state/status.json.new"
  mv "$state/status.json.new" "$state/status.json"
  echo "nix-local-upgrade: $1: $2"
}

mkdir -p "$state"
if [[ $UPGRADE_MODE == local && ! -d $UPGRADE_REPOSITORY ]]; then
  report skipped "No repository at $UPGRADE_REPOSITORY"
else
  report skipped "This agent only reports so far"
fi

# shellcheck shell=bash
# shellcheck disable=SC2034 # the program that this is a part of uses it
# What a power cut does to a repository, for every agent that keeps one.

# git leaves objects and refs to the page cache, and a power cut leaves an empty ref of what was just written
durable=(GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=core.fsync GIT_CONFIG_VALUE_0=all)

# A cut between the writing of a file and its renaming leaves its lock, and git refuses that file ever after.
# No program that runs has a lock from before this boot.
drop_stale_locks() { # drop_stale_locks <.git directory>
  [[ -L /run/booted-system && -d $1 ]] || return 0
  find "$1" -name objects -prune -o -name '*.lock' -type f ! -newer /run/booted-system -print -exec rm -f {} +
}

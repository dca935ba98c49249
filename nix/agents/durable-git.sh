# shellcheck shell=bash
# shellcheck disable=SC2034 # the program that this is a part of uses it
# What a power cut does to a repository, for every agent that keeps one.

# git leaves objects and refs to the page cache, and a power cut leaves an empty ref of what was just written
durable=(GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=core.fsync GIT_CONFIG_VALUE_0=all)

# A cut between the writing of a file and its renaming leaves its lock, and git refuses that file ever after.
# No program that runs has a lock from before this boot; but a clock may have been ahead when it booted.
drop_stale_locks() { # drop_stale_locks <.git directory>
  [[ -L /run/booted-system && -d $1 ]] || return 0
  drop_locks "$1" ! -newer /run/booted-system
}

# Removes locks that nobody holds, and prints them.
drop_locks() { # drop_locks <.git directory> <tests of find...>
  local directory=$1 lock
  shift
  while IFS= read -r -d '' lock; do
    if ! held "$lock" "$directory"; then rm -f "$lock" && echo "$lock"; fi
  done < <(find "$directory" -name objects -prune -o -name '*.lock' -type f "$@" -print0)
}

# Whether somebody has a lock. git closes it while it waits for an editor, so any git or jj counts that is at
# work in this repository, as well as whatever has the file open.
held() { # held <lock> <.git directory>
  local top process name there
  if [[ -n $(find /proc/[0-9]*/fd -lname "$(realpath "$1")" -print -quit 2>/dev/null) ]]; then return 0; fi
  top=$(realpath "$2")
  top=${top%/.git}
  for process in /proc/[0-9]*; do
    { read -r name <"$process/comm"; } 2>/dev/null || continue
    if [[ $name != git* && $name != jj* ]]; then continue; fi
    there=$(readlink "$process/cwd" || true)
    if [[ $there/ == "$top"/* ]]; then return 0; fi
    if tr '\0' '\n' <"$process/cmdline" 2>/dev/null | grep --quiet --fixed-strings "$top"; then return 0; fi
    if tr '\0' '\n' <"$process/environ" 2>/dev/null | grep --quiet "^GIT_\(DIR\|WORK_TREE\)=$top"; then return 0; fi
  done
  return 1
}

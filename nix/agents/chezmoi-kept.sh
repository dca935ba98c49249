# shellcheck shell=bash
# Where files are put aside: each in a new directory, so that none ever overwrites another.

# Makes such a directory, in REPLY. Its name is the time in seconds, or one second after the latest one there:
# so no two share a name, and the newest copy is the last by name, even after a clock was set back.
new_place() { # <directory of everything that is put aside>
  local places=("$1"/2*) last now
  last=$(date -d "${places[-1]##*/}" +%s 2>/dev/null || echo 0)
  now=$EPOCHSECONDS
  ((now > last)) || now=$((last + 1))
  TZ=UTC printf -v REPLY '%s/%(%FT%TZ)T' "$1" "$now"
  mkdir "$REPLY"
}

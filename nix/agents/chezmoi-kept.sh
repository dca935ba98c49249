# shellcheck shell=bash
# Where things are put aside: each in a directory of its own, so that none is ever written over another.

# Makes such a directory, in REPLY. Its name is the time in seconds, or a second later than the last one there:
# so no two have one name, and the newest copy is the last by name, also after a clock was put back.
new_place() { # <directory of all that is put aside>
  local places=("$1"/2*) last now
  last=$(date -d "${places[-1]##*/}" +%s 2>/dev/null || echo 0)
  now=$EPOCHSECONDS
  ((now > last)) || now=$((last + 1))
  TZ=UTC printf -v REPLY '%s/%(%FT%TZ)T' "$1" "$now"
  mkdir "$REPLY"
}

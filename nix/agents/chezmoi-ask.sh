# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the program that this is a part of uses it, and has a directory `work`
# What chezmoi is asked, whatever its user has set for it.

limit=${CHEZMOI_LIMIT:-180}                                 # seconds for a command on local files
quietly=(--interactive=false --verbose=false --color=false) # for chezmoi

# started by a hook of git or an alias, as one of another repository, it is not to work in that one
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_NAMESPACE GIT_PREFIX

# Prints the answer; errors are kept by name of the step. The user's hooks print where chezmoi does, and are not what
# was asked for; and what they leave running has open all that chezmoi has, which must be no pipe that somebody reads
# from.
ask_chezmoi() { # <seconds> <step> <arguments of chezmoi...>
  local code=0
  timeout --kill-after=5 "$1" chezmoi --output=/dev/fd/3 "${quietly[@]}" "${@:3}" \
    </dev/null 3>"$work/answer" >/dev/null 2>"$work/$2" 9>&- || code=$?
  if ((code == 124 || code == 137)); then echo "No end within $1 s" >>"$work/$2"; fi
  cat "$work/answer" || code=$?
  return "$code"
}

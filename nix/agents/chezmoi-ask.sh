# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the program that this is a part of uses it, and has a directory `work`
# Asks chezmoi, independent of what its user has configured.

limit=${CHEZMOI_LIMIT:-180}                                 # seconds for a command on local files
quietly=(--interactive=false --verbose=false --color=false) # for chezmoi

# when a git hook or an alias of another repository starts this, it must not work in that repository
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_NAMESPACE GIT_PREFIX

# Prints chezmoi's answer; errors are kept by name of the step. The user's hooks print to the same output, and are no
# part of the answer. Processes that they leave running keep all of chezmoi's files open, so none of these may be a
# pipe that this program reads from.
ask_chezmoi() { # <seconds> <step> <arguments of chezmoi...>
  local code=0
  timeout --kill-after=5 "$1" chezmoi --output=/dev/fd/3 "${quietly[@]}" "${@:3}" \
    </dev/null 3>"$work/answer" >/dev/null 2>"$work/$2" 9>&- || code=$?
  if ((code == 124 || code == 137)); then echo "No end within $1 s" >>"$work/$2"; fi
  cat "$work/answer" || code=$?
  return "$code"
}

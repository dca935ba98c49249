# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Why a build failed, from Nix's output (tested with 2.8, 2.26 and 2.34), and whose fault that is: the commit's,
# which is remembered, or that of the machine or the network, which is tried again.

build_reason=''    # in one line
failed_drv=''      # the first derivation that failed; empty when the evaluation failed
failed_log=''      # the end of its log
missing_file=''    # what the evaluation looked for in the commit
said_by_nix=''     # everything except the output of builders

# The first error counts: errors that only follow from another are skipped, and of a nested
# one the innermost gives the reason.
read_build_reason() {
  local line inside='' errors=() i cause=''
  build_reason='' failed_drv='' failed_log='' missing_file='' said_by_nix=''
  while IFS= read -r line || [[ -n $line ]]; do
    if [[ ! $line =~ ^\ *\> ]]; then said_by_nix+=$line$'\n'; fi
    if [[ $line =~ ^\ *error:($|\ ) ]]; then
      errors+=("$line") inside=yes
    elif [[ -n $inside && $line =~ ^($|\ ) ]]; then
      errors[-1]+=$'\n'$line
    else
      inside=''
    fi
  done < <(tr -d '\000\r' <"$work/said")
  for i in "${!errors[@]}"; do
    if [[ ${errors[i]} =~ (Reason:\ [0-9]+\ dependenc|[0-9]+\ dependencies\ of\ derivation|some\ substitutes\ for\ the\ outputs|no\ substituter\ that\ can\ build) ]]; then continue; fi
    message_of "${errors[i]}"
    if [[ -z $REPLY ]]; then continue; fi
    cause=$i build_reason=$REPLY
    if [[ ${errors[i]} =~ (builder\ for|Cannot\ build|fixed-output\ derivation)\ \'([^\']*\.drv)\' ]]; then
      failed_drv=${BASH_REMATCH[2]}
      failed_log=$(sed -n -E 's/^ *> ?(.*[^[:space:]])[[:space:]]*$/\1/p' <<<"${errors[i]}")
      break
    fi
  done
  if [[ -z $cause ]]; then
    build_reason=$(grep -v '^[[:space:]]*$' "$work/said" | tail -n 1 || true)
  elif [[ -n $failed_drv ]]; then
    if [[ $build_reason =~ (builder\ failed\ [^.\;]*|failed\ with\ [^\;]*|failed\ due\ to\ [^\;]*) ]]; then
      build_reason="Cannot build $failed_drv: builder ${BASH_REMATCH[1]#builder }"
    fi
    build_reason+=${failed_log:+: ${failed_log##*$'\n'}}
  else
    place_of "$cause" "${errors[@]}"
    build_reason+=${REPLY:+ at $REPLY}
    if [[ ${errors[cause]} =~ (Did you mean [^$'\n']*) ]]; then build_reason+=" (${BASH_REMATCH[1]})"; fi
  fi
}

# message_of <error>: its own message in one line, in REPLY; empty where only a trace follows
message_of() {
  local line
  REPLY=''
  while IFS= read -r line; do
    line=${line#"${line%%[! ]*}"}
    case $line in
      'at /'* | 'at «'* | '… '* | '(use '* | '(stack trace'* | '> '* | 'Output paths:' | [Ll]'ast '*' log lines:' | \
        'For full logs'* | 'Did you mean '* | [0-9]*'| '*) break ;;
    esac
    line=${line#error:}
    line=${line#"${line%%[! ]*}"}
    REPLY+=${line:+${REPLY:+ }$line}
  done <<<"$1"
  if [[ $REPLY =~ \'([^\']*)\'(\ does\ not\ exist|:\ No\ such\ file) ]] && path_in_commit "${BASH_REMATCH[1]}"; then
    missing_file=$path
  fi
  # names files as in the repository
  # shellcheck disable=SC2001 # bash has no such pattern
  REPLY=$(sed -E "s#(«[^»]*»|/[^ '\`\"]*/[0-9a-z]{32}(-[0-9a-z]{32})?-source)/##g; s/  +/ /g" <<<"$REPLY")
}

# place_of <number of an error> <errors...>: its place in the commit, in REPLY: the error's own, or else the
# last one on the way to it
place_of() {
  local last=$1 line own='' way='' i
  shift
  for ((i = 1; i <= last + 1; i++)); do
    while IFS= read -r line; do
      if [[ $line =~ ^\ *at\ (.*:[0-9]+:[0-9]+):?$ ]] && path_in_commit "${BASH_REMATCH[1]}"; then
        way=$path
        if ((i == last + 1)) && [[ -z $own ]]; then own=$path; fi
      fi
    done <<<"${!i}"
  done
  REPLY=${own:-$way}
}

# path_in_commit <place as Nix names it>: its path in the repository, in `path`; fails when it belongs to an input
path=''
path_in_commit() {
  if [[ $1 =~ ^«git\+file://[^»]*rev=${candidate}[^»]*»/(.*)$ || $1 =~ ^/.*/[0-9a-z]{32}(-[0-9a-z]{32})?-source/(.*)$ ]]; then
    path=${BASH_REMATCH[1]}${BASH_REMATCH[3]-}
  else
    return 1
  fi
}

# machine_fault: whether the machine, and not the commit, made the build fail: the cause is in REPLY
machine_fault() {
  local said=${said_by_nix,,} log=${failed_log,,} own
  # other lines of an evaluation may contain any words
  own=$(grep -i -E '^ *(error|fatal)|sqlite|^gc warning' <<<"$said" || true)
  case $said in
    *'shallow git repository'* | *'is a shallow'*) REPLY='The repository is a shallow clone, which Nix does not read' ;;
    *daemon-socket* | *'nix daemon disconnected'* | *'unexpected end-of-file'* | *"remote store 'daemon'"*)
      REPLY='Cannot ask the Nix daemon' ;;
    *)
      if grep -q -E 'out of memory|bad_alloc|cannot allocate memory|resource temporarily unavailable' <<<"$own" ||
        grep -q -E 'out of memory|cannot allocate memory|virtual memory exhausted' <<<"$log"; then
        REPLY='The build ran out of memory'
      elif [[ $build_reason == *'signal 9'* ]]; then
        REPLY='A builder was killed'
      elif grep -q -E 'input/output error|disk i/o error|structure needs cleaning|stale file handle' <<<"$own"$'\n'"$log"; then
        REPLY='The disk, or a cache on it, has read or write errors'
      elif grep -q -E 'read-only file system|readonly database|unable to open database|database is (locked|busy)' <<<"$own"; then
        REPLY='Nix cannot write to its store or database'
      elif grep -q -E 'permission denied|operation not permitted|not owned by|dubious ownership|too many open files' <<<"$own"; then
        REPLY='Nix was denied access to something that it needs'
      elif grep -q 'hash mismatch importing path' <<<"$own"; then
        REPLY='The binary cache served other contents than it announced'
      elif grep -q -E "object not found|is corrupt|bad object|disk image is malformed|file is not a database|path '/nix/store/[^']*' is not valid|lacks a (valid )?signature" <<<"$own"; then
        REPLY='The repository or the store is damaged'
      else
        return 1
      fi
      ;;
  esac
}

# Whether something of the commit failed: a derivation, a place in an expression, or the flake as a whole. Anything
# else, such as a nix.conf that cannot be read, comes from where Nix runs.
is_of_commit() {
  [[ $failed_drv$build_reason == *@(.drv|flake)* ]] || grep -q -E '^ *at .*:[0-9]+:[0-9]+:?$' <<<"$said_by_nix"
}

# Whether something that was to be fetched is at fault; if so, `judge_remote` has judged it.
fetch_fault() {
  local said
  if [[ -n $failed_drv ]]; then
    # a builder's network error counts only in a derivation that fetches (one with a fixed output)
    grep -q -E '^Derive\(\[\("[^"]*","[^"]*","[^"]+"' "$failed_drv" 2>/dev/null || return 1
    [[ $build_reason != 'hash mismatch'* ]] || return 1
    judge_remote "$failed_log"
    [[ $verdict == offline ]]
    return
  fi
  said=$(grep -E '^(fatal|ssh|curl): |^[^ ]*: Permission denied \(|^Host key|unable to download|[Ff]ailed to (fetch|open archive)' <<<"$said_by_nix" || true)
  [[ -n $said ]] || return 1
  judge_remote "$said"
}

# A fault of the machine or the network is not held against the revision, which is tried again.
build_failed() { # build_failed <exit code> <seconds that it took> <number of programs killed for want of memory, before it>
  local killed
  read_build_reason
  if grep -q -i -E 'no space left on device|disk is full|disk quota exceeded' "$work/said"; then
    stop no-space "The build ran out of space: $build_reason"
  fi
  killed_for_memory
  killed=$((REPLY - $3))
  if ((killed)) && { [[ $1 -ge 124 ]] || grep -q -i -E 'killed|disconnected|end-of-file' "$work/said"; }; then
    stop failed "The build ran out of memory, and the kernel killed one of its processes${build_reason:+: $build_reason}"
  fi
  if grep -q 'GC Warning: Out of Memory' "$work/said"; then stop failed 'The evaluation ran out of memory'; fi
  if [[ $1 -ge 124 && $2 -ge $build_limit ]]; then stop build-failed "The build took longer than $build_limit s"; fi
  if [[ $1 -ge 124 ]]; then stop failed "The build was ended by signal $(($1 - 128))"; fi
  if [[ -n $missing_file ]]; then
    build_reason="\`$missing_file\` is not in the commit"
    if submodule_of "$missing_file"; then
      build_reason+=": \`$REPLY\` is a submodule, which is not fetched"
    elif [[ -e ${repository:-}/$missing_file ]]; then
      build_reason+=": the file is there, but not tracked"
    fi
  elif fetch_fault; then
    why "$(grep -v '^From \|^ \* ' <<<"$said_by_nix")"
    if [[ $build_reason != *"$REPLY"* ]]; then build_reason+=" ($REPLY)"; fi
    stop "$verdict" "Cannot fetch what the build needs: $build_reason${remedy:+; $remedy}"
  elif machine_fault; then
    stop failed "$REPLY: $build_reason"
  elif ! is_of_commit; then
    stop failed "Nix failed for a reason outside the commit: $build_reason"
  fi
  remember_bad build-failed "$build_reason"
  stop build-failed "$build_reason"
}

# How many programs the kernel has killed for want of memory since it booted, in REPLY
killed_for_memory() {
  REPLY=$(sed -n 's/^oom_kill //p' /proc/vmstat)
  REPLY=${REPLY:-0}
}

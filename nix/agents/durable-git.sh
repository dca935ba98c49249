# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Guards a repository against a power cut, a kill or a full disk, for every agent that keeps one.

# git leaves objects and refs in the page cache, and a power cut empties a ref that was just written.
# The output of `grep` and `log` is for a program, so the user's settings for it are overridden.
durable=(GIT_CONFIG_COUNT=6 GIT_CONFIG_KEY_0=core.fsync GIT_CONFIG_VALUE_0=all)
durable+=(GIT_CONFIG_KEY_1=color.grep GIT_CONFIG_VALUE_1=false GIT_CONFIG_KEY_2=grep.patternType GIT_CONFIG_VALUE_2=basic)
durable+=(GIT_CONFIG_KEY_3=log.showSignature GIT_CONFIG_VALUE_3=false)
# Submodules that the user has checked out have other remotes, which no agent needs.
durable+=(GIT_CONFIG_KEY_4=fetch.recurseSubmodules GIT_CONFIG_VALUE_4=false)
# A process that git starts to watch files stays, and would hold the agent's lock for as long as it runs.
durable+=(GIT_CONFIG_KEY_5=core.fsmonitor GIT_CONFIG_VALUE_5=false)

ended_badly='' # whether the last run was killed, or failed

# Call this before a run writes its own status.
look_how_it_ended() { # look_how_it_ended <status of the last run>
  if [[ -e $1 ]] && ! grep -qE '"outcome": ?"(upgraded|synced|up-to-date|offline|skipped)"' "$1"; then ended_badly=yes; fi
}

# An interruption between writing a file and renaming it leaves the file's lock, and git refuses that file ever after.
# So does a disk on which nothing can be removed. After a run that ended well, only a lock from before this boot is
# stale for certain: no running program holds it; but the clock may have been ahead at that boot.
drop_stale_locks() { # drop_stale_locks <.git directory>
  [[ -d $1 ]] || return 0
  if [[ -n $ended_badly ]]; then
    drop_locks "$1"
  elif [[ -L /run/booted-system ]]; then
    drop_locks "$1" ! -newer /run/booted-system
  fi
}

# Removes locks that no process holds, and prints them.
drop_locks() { # drop_locks <.git directory> <tests of find...>
  local directory=$1 lock
  shift
  while IFS= read -r -d '' lock; do
    if ! held "$lock" "$directory"; then rm -f "$lock" && echo "$lock"; fi
  done < <(find "$directory" -name objects -prune -o -name '*.lock' -type f "$@" -print0)
}

# Whether a process holds a lock. git closes the file while it waits for an editor, so any git or jj that works
# in this repository counts, as well as any process that has the file open.
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

# jj leaves objects and refs in the page cache, too. At an empty one git refuses every fetch, while jj takes it for
# the object that it is about to write. Both are renamed to their place when complete, so an empty one is
# never valid. A ref by which jj keeps a commit is named after it, and is written anew if that commit exists.
drop_unwritten() { # drop_unwritten <.git directory>: prints what it has removed
  local file id ref
  while IFS= read -r -d '' file; do
    rm -f "$file" && echo "$file"
    id=${file##*/}
    if [[ $file == "$1/objects"/* ]]; then
      ref=${file%/*}
      ref=$1/refs/jj/keep/${ref##*/}$id
      if [[ -e $ref ]]; then rm -f "$ref" && echo "$ref"; fi
    elif repo_git cat-file -e "$id^{commit}" 2>/dev/null; then
      repo_git update-ref "refs/jj/keep/$id" "$id" || true
    fi
  done < <(find "$1/objects" "$1/refs/jj/keep" -type f -empty -regextype posix-extended -regex '.*/[0-9a-f]{38,64}' -print0 2>/dev/null)
}

# -- a step of jj that was cut off
#
# An agent records the current operation before it runs a step of jj that moves git's HEAD, and can go back to it, in
# this run or the next. It defines
#   repo_jj, repo_git  jj and git in the repository
#   as_user            any command in the repository, after its limit in seconds
#   say                prints a line
# and sets `remote_commit`, the commit that the step leads to.

before_op='' after_op='' # operations of jj: the one to go back to, and the last one of the step, if it is known

# Also snapshots edits made by hand since jj last looked, unless told not to.
operation() { repo_jj op log --no-graph --limit 1 --template id "$@"; } # operation [<options of jj>]
git_head() {
  local code=0
  repo_git rev-parse --verify --quiet HEAD || code=$?
  if [[ $code == 1 ]]; then echo none; fi
}

# jj moves git's HEAD first, then records the operation that does so, and changes the files last. If it is cut off in
# between, the next run of jj believes that a user moved HEAD, and takes the files for edits that undo the new commits.
# So a step that changes files holds git's lock on HEAD: jj warns about that, and goes on. HEAD moves last, when the
# files match it.

# shellcheck disable=SC2016 # another bash reads it
without_head() { # without_head <command...>: fails with the reason in REPLY where HEAD cannot be locked
  local lock code=0
  if ! lock=$(as_user 20 bash -c 'set -C; lock=$(git rev-parse --git-path HEAD.lock) && : >"$lock" && echo "$lock"' 2>&1); then
    REPLY="cannot lock git's HEAD: ${lock#*line 1: }"
    return 1
  fi
  REPLY=''
  "$@" || code=$?
  as_user 20 rm -f "$lock" || true
  return "$code"
}

# Moves HEAD to where jj has it, by an operation that changes nothing else. Fails with the reason in REPLY.
head_follows() {
  local name=head-follows
  if head_is_right; then return; fi
  # without a snapshot: later edits are the user's, and would pass for the step's
  if repo_jj --ignore-working-copy --ignore-immutable bookmark set "$name" --revision @ --allow-backwards >"$work/said" 2>&1 &&
    repo_jj --ignore-working-copy --ignore-immutable bookmark forget "exact:$name" >>"$work/said" 2>&1 && head_is_right; then return; fi
  # jj exits with 0 even where it could not
  if git_follows "$work/said"; then why "$(<"$work/said")"; fi
  REPLY="cannot move git's HEAD: $REPLY"
  return 1
}

# jj exits with 0 where git's own refs could not be moved, and only warns, perhaps twice.
git_follows() { # git_follows <file with jj's output> [<the only thing that may not fail>]: fails with the warning in REPLY
  REPLY=$(grep --max-count 1 --after-context 9 "^Warning: Failed to ${2-}" "$1" | grep -E '^(Warning|[0-9]+):|^ +[^ ]+@git: ' |
    sed -E '1!{/^Warning:/,$d}; s/^ +//; s/ at path "[^"]*"//g; s/(: [^:]+)\1+$/\1/' | paste --serial --delimiters ' ') && return 1 || return 0
}

# Whether all operations since the first belong to a rebase or its rollback: one that was cut off has not recorded
# its last.
only_rebased_since() { # only_rebased_since <operation> [<regular expression of what else is allowed>]
  local id what
  while read -r id what; do
    case "$id $what" in
      "$1 "*) return 0 ;;
      *" import git"* | *" rebase "* | *" point bookmark"* | *" forget bookmark head-follows" | *" export git"* | *" new empty commit" | *" restore to operation $1"*) ;;
      *) [[ -n ${2-} && $what =~ ^($2) ]] || return 1 ;;
    esac
  done < <(repo_jj op log --no-graph --ignore-working-copy --limit 100 --template 'id ++ " " ++ description.first_line() ++ "\n"')
  return 1
}
# jj snapshots a user's edits as it begins a step, after `before_op` was recorded: that snapshot is where to go back to.
took_in_since() { # took_in_since <operation> <first words of the step's own operation>: the snapshot in REPLY, or <operation> if none
  local id what own=''
  REPLY=$1
  while read -r id what; do
    case "$id $what" in
      "$1 "*) return ;;
      *" $2"*) own=yes ;;
      *' snapshot working copy') if [[ -n $own ]]; then REPLY=$id && return; fi ;;
    esac
  done < <(repo_jj op log --no-graph --ignore-working-copy --limit 100 --template 'id ++ " " ++ description.first_line() ++ "\n"')
}
nobody_else_since() { # nobody_else_since <operation> <current operation>
  [[ $2 == "$1" || $2 == "$after_op" ]] || only_rebased_since "$1"
}

# jj reads no tree with a name that is not UTF-8, and reports only the tree: finds the file, as a remedy in REPLY.
misnamed() {
  REPLY=$(repo_git ls-tree -r -z --name-only "$remote_commit" 2>/dev/null | LC_ALL=C.UTF-8 grep -zavx -m 1 '.*' | tr -d '\0')
  if [[ -n $REPLY ]]; then printf -v REPLY '; rename %q: its name is not UTF-8' "$REPLY"; fi
}

# The visible commits and the names of an operation.
view_of() { # view_of <operation>
  repo_jj log --no-graph --at-operation "$1" --revisions 'visible_heads() | @ | bookmarks() | remote_bookmarks() | tags()' \
    --template 'commit_id ++ if(current_working_copy, " @ ") ++ local_bookmarks ++ " " ++ remote_bookmarks ++ " " ++ tags ++ "\n"'
}

# Restores the state at `before_op`, unless a user has changed the repository since: that work must not be lost.
# Fails with the reason in REPLY: 1 where it may work the next time, 2 where it never will.
go_back() {
  local current said
  if ! said=$(repo_jj operation show --no-op-diff --ignore-working-copy "$before_op" 2>&1 >/dev/null); then
    # jj's operation log was shortened meanwhile
    if [[ $said == *'No operation ID matching'* ]]; then REPLY='jj no longer has the operation to go back to' && return 2; fi
    why "$said"
    return 1
  fi
  restore_head || return 1
  if grep --quiet --extended-regexp 'Object [0-9a-f]+ .*not found' <(repo_jj log --no-graph --ignore-working-copy --revisions @ 2>&1); then
    forget_unwritten || { REPLY="commits of its last operations are lost: \`jj op log\` and \`git fsck\` tell which" && return 1; }
  fi
  if ! current=$(operation 2>"$work/said"); then
    finish_checkout "$before_op" || return 1
    current=$(operation 2>"$work/said") || { REPLY=$(tail -n 1 "$work/said") && return 1; }
  fi
  if [[ $current == "$before_op" ]]; then return; fi
  if ! nobody_else_since "$before_op" "$current"; then
    head_follows || return 1
    REPLY='changed by somebody else since'
    return 2
  fi
  # an earlier run may have gone back already
  if [[ $current != "$after_op" ]]; then
    if is_as_before "$current"; then return; fi
  fi
  if without_head repo_jj op restore --ignore-immutable "$before_op" >"$work/said" 2>&1 && git_follows "$work/said" export; then
    took_in_since "$current" "restore to operation $before_op"
    if [[ $REPLY != "$current" ]]; then
      without_head repo_jj op restore --ignore-immutable "$REPLY" >"$work/said" 2>&1 || { why "$(<"$work/said")"; return 1; }
      head_follows || return 1
      REPLY='changed by somebody else since'
      return 2
    fi
    REPLY=''
    head_follows || return 1
    if sync --file-system "$repository" && current=$(operation 2>"$work/said") && is_as_before "$current"; then return; fi
  fi
  [[ -n $REPLY ]] || REPLY=$(tail -n 1 "$work/said")
  REPLY=${REPLY:-the restored state differs from the former one}
  return 1
}

# jj syncs an operation to the disk at once, but not its commits: one that survives a power cut without them makes jj
# unable to read anything. If it belongs to this step, jj and the files are set back to before it.
forget_unwritten() {
  local from
  only_rebased_since "$before_op" 'commit |snapshot working copy' || return 1
  from=$(repo_jj log --no-graph --at-operation "$before_op" --revisions @ --template commit_id) || return 1
  say "commits of an operation that was cut off are lost, and the operation is undone"
  # the commit that the files were on the way to is lost; it had the files of the remote's commit
  if [[ -n $remote_commit ]]; then
    as_user 600 bash -euo pipefail -c "$(declare -f put_files_back begun); put_files_back $from $remote_commit" || return 1
  fi
  # shellcheck disable=SC2016 # another bash reads it
  as_user 20 bash -euo pipefail -c 'cp -T --preserve .jj/copy-before/checkout .jj/working_copy/checkout
    cp -T --preserve .jj/copy-before/tree_state .jj/working_copy/tree_state
    cd .jj/repo/op_heads/heads; : >"$1"; find . -type f ! -name "$1" -delete' - "$before_op"
}
# Saves what jj knows of the files, at the time when `before_op` is recorded.
# shellcheck disable=SC2016 # another bash reads it
keep_copy() { as_user 20 bash -euo pipefail -c 'rm -rf .jj/copy-before; cp -rT --preserve .jj/working_copy .jj/copy-before'; }

is_as_before() { # is_as_before <current operation>
  [[ $(view_of "$1") == "$(view_of "$before_op")" ]] && head_is_right
}
# Whether git's HEAD is where jj has it.
head_is_right() {
  local parent
  parent=$(repo_jj log --no-graph --ignore-working-copy --revisions 'first_parent(@)' --template 'if(root, "none", commit_id)') &&
    [[ $(git_head) == "$parent" ]]
}

# If jj was cut off between moving HEAD and recording that, its next start would believe that a user moved HEAD.
restore_head() {
  local head recorded
  head=$(git_head)
  recorded=$(repo_jj git colocation status --ignore-working-copy 2>/dev/null | sed -n -E 's/^Last .*HEAD: \(?(\w+)\)?$/\1/p')
  if [[ -z $recorded || $head == "$recorded" ]] || ! is_our_head "$head"; then return; fi
  say "git's HEAD was left at ${head:0:12}, and is put back"
  if ! move_head_to "$recorded"; then
    REPLY="git's HEAD cannot be moved"
    return 1
  fi
}
move_head_to() { # move_head_to <commit, or `none`>
  if [[ $1 == none ]]; then
    # the name that jj uses
    repo_git symbolic-ref HEAD refs/jj/root || return
    repo_git read-tree --empty || true
  else
    repo_git update-ref --no-deref HEAD "$1" || return
    repo_git read-tree HEAD || true
  fi
}
# Whether the step moved HEAD there: to its target, to the former parent, or to another version of that or of the
# working copy.
is_our_head() { # is_our_head <commit>
  local before change
  if [[ $1 == "$remote_commit" ]]; then return; fi
  before=$(repo_jj log --no-graph --at-operation "$before_op" --revisions 'first_parent(@)' --template commit_id)
  if [[ $1 == "$before" || $(authored "$1") == "$(authored "$before")" ]]; then return; fi
  change=$(repo_git cat-file commit "$1" | sed -n -E '/^$/q; s/^change-id ([k-z]+)$/\1/p')
  [[ -n $change ]] &&
    repo_jj log --no-graph --at-operation "$before_op" --revisions '@ | first_parent(@)' --template 'change_id ++ "\n"' |
    grep --quiet --line-regexp "$change"
}
authored() { repo_git log --max-count 1 --format='%an %ae %at %B' "$1" 2>/dev/null; } # authored <commit>

# A checkout that was cut off leaves some files new and some old, and jj would take that for edits. So the files are
# first restored to the commit that jj believes is checked out, and then moved to the right one.
finish_checkout() { # finish_checkout <operation to go back to, or nothing>: fails with the reason in REPLY
  local said from to current
  if said=$(operation 2>&1 >/dev/null); then return; fi
  if [[ ! $said =~ 'not updated since operation '([0-9a-f]+) ]]; then
    why "$said"
    return 1
  fi
  if ! from=$(repo_jj log --no-graph --at-operation "${BASH_REMATCH[1]}" --revisions @ --template commit_id) ||
    ! to=$(repo_jj log --no-graph --ignore-working-copy --revisions @ --template commit_id) ||
    ! current=$(operation --ignore-working-copy); then
    REPLY='jj cannot read it'
    return 1
  fi
  say "the working copy was left between ${from:0:12} and ${to:0:12}"
  said=$(as_user 600 bash -euo pipefail -c "$(declare -f put_files_back begun); put_files_back $from $to" 2>&1) ||
    { REPLY="files of the working copy: ${said##*$'\n'}"; return 1; }
  if [[ -n $1 ]] && nobody_else_since "$1" "$current"; then
    said=$(repo_jj op restore --ignore-working-copy --ignore-immutable "$1" 2>&1) || { why "$said"; return 1; }
  fi
  if ! without_head repo_jj workspace update-stale >"$work/said" 2>&1; then
    [[ -n $REPLY ]] || why "$(<"$work/said")"
    return 1
  fi
  head_follows
}

# Runs as the user. Restores a file that is gone, or that holds the beginning of its old or new content:
# anything else is a user's edit.
# shellcheck disable=SC2317,SC2329 # bash gets its text
put_files_back() { # put_files_back <commit of the files> <commit that they were on the way to>
  local row file mode from to pass
  # first remove new files: their room may be needed, and a directory may be where a file was
  for pass in new old; do
    while IFS='' read -r -d '' row && IFS='' read -r -d '' file; do
      read -r mode _ from to _ <<<"${row#:}"
      case $pass$mode in new000000 | old1[02]*) ;; *) continue ;; esac
      # entry for a conflict, of whose text in the working copy git knows nothing
      if [[ $file == .jjconflict-* ]]; then continue; fi
      if [[ $pass == old && -d $file && ! -L $file ]]; then rmdir "$file" 2>/dev/null || continue; fi
      if [[ -e $file || -L $file ]]; then
        # unchanged since jj last looked at it
        if [[ .jj/working_copy/checkout -nt $file ]]; then continue; fi
        begun "$file" "$from" || begun "$file" "$to" || continue
      fi
      if [[ $pass == new ]]; then
        if [[ -e $file || -L $file ]]; then rm -f "$file"; fi
        if [[ $file == */* && -d ${file%/*} ]]; then rmdir --parents --ignore-fail-on-non-empty "${file%/*}"; fi
        continue
      fi
      if [[ $file == */* ]]; then mkdir -p "${file%/*}"; fi
      if [[ -L $file || $mode == 120000 ]]; then rm -f "$file"; fi
      case $mode in
        120000) ln -s "$(git cat-file blob "$from")" "$file" ;;
        *)
          git cat-file blob "$from" >"$file"
          if [[ $mode == 100755 ]]; then chmod +x "$file"; else chmod -x "$file"; fi
          ;;
      esac
    done < <(git diff-tree -r -z --no-renames "$1" "$2")
  done
}
# shellcheck disable=SC2317,SC2329 # put_files_back calls it
begun() { # begun <file> <blob>: whether it holds the blob, or its beginning
  if [[ $2 =~ ^0*$ || -d $1 && ! -L $1 ]]; then return 1; fi
  if [[ -L $1 ]]; then
    [[ $(readlink "$1") == "$(git cat-file blob "$2")" ]]
  elif [[ -f $1 ]]; then
    [[ ! -s $1 ]] || cmp --silent --bytes "$(stat --format %s "$1")" "$1" <(git cat-file blob "$2")
  else
    return 1
  fi
}

# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# What a power cut, a kill or a full disk does to a repository, for every agent that keeps one.

# git leaves objects and refs to the page cache, and a power cut leaves an empty ref of what was just written.
# And what it finds and prints is for a program, however its user likes to see it.
durable=(GIT_CONFIG_COUNT=5 GIT_CONFIG_KEY_0=core.fsync GIT_CONFIG_VALUE_0=all)
durable+=(GIT_CONFIG_KEY_1=color.grep GIT_CONFIG_VALUE_1=false GIT_CONFIG_KEY_2=grep.patternType GIT_CONFIG_VALUE_2=basic)
durable+=(GIT_CONFIG_KEY_3=log.showSignature GIT_CONFIG_VALUE_3=false)
# Submodules that their user has at hand have remotes of their own, which no agent has need of.
durable+=(GIT_CONFIG_KEY_4=fetch.recurseSubmodules GIT_CONFIG_VALUE_4=false)

ended_badly='' # whether the last run was killed, or came to a failure

# To be asked before a run writes a status of its own.
look_how_it_ended() { # look_how_it_ended <status of the last run>
  if [[ -e $1 ]] && ! grep -qE '"outcome": ?"(upgraded|synced|up-to-date|offline|skipped)"' "$1"; then ended_badly=yes; fi
}

# A cut between the writing of a file and its renaming leaves its lock, and git refuses that file ever after. So does
# a disk that lets nothing be removed. After a run that ended well, only a lock from before this boot is one of these:
# no program that runs has it; but a clock may have been ahead when it booted.
drop_stale_locks() { # drop_stale_locks <.git directory>
  [[ -d $1 ]] || return 0
  if [[ -n $ended_badly ]]; then
    drop_locks "$1"
  elif [[ -L /run/booted-system ]]; then
    drop_locks "$1" ! -newer /run/booted-system
  fi
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

# jj leaves objects and refs to the page cache, too, and at an empty one git refuses every fetch, while jj takes it for
# what it would have written again. Both are renamed to their place when they are whole, so that an empty one is
# nobody's work. A ref by which jj keeps a commit has its name, and is written anew where there is that commit.
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
# An agent notes where things are before it has jj do what moves git's HEAD, and can go back there, in this run
# or the next. It defines
#   repo_jj, repo_git  jj and git in the repository
#   as_user            the same for any command, after its limit in seconds
#   say                which prints a line
# and sets `remote_commit`, where the step is to lead.

before_op='' after_op='' # operations of jj: what to go back to, and the last one of the step, if it is known

# Also takes in what was edited by hand since jj last looked, unless told not to.
operation() { repo_jj op log --no-graph --limit 1 --template id "$@"; } # operation [<options of jj>]
git_head() {
  local code=0
  repo_git rev-parse --verify --quiet HEAD || code=$?
  if [[ $code == 1 ]]; then echo none; fi
}

# jj moves git's HEAD first, then writes down the operation that does so, and changes the files last. Cut off in
# between, the next jj of anybody takes HEAD for moved by hand, and the files for edits that undo what came with it.
# So a step that changes files has HEAD locked, as git locks it: jj warns of that, and goes on. HEAD follows last, when
# the files are what it says.

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
  # edits since are somebody's own, and would pass for the step's
  if repo_jj --ignore-working-copy --ignore-immutable bookmark set "$name" --revision @ --allow-backwards >"$work/said" 2>&1 &&
    repo_jj --ignore-working-copy --ignore-immutable bookmark forget "exact:$name" >>"$work/said" 2>&1 && head_is_right; then return; fi
  # jj ends well where it could not
  if git_follows "$work/said"; then why "$(<"$work/said")"; fi
  REPLY="cannot move git's HEAD: $REPLY"
  return 1
}

# jj ends well where git's own refs could not be moved, and only warns, perhaps twice.
git_follows() { # git_follows <file with what jj said> [<what alone may not fail>]: fails with the warning in REPLY
  REPLY=$(grep --max-count 1 --after-context 9 "^Warning: Failed to ${2-}" "$1" | grep -E '^(Warning|[0-9]+):|^ +[^ ]+@git: ' |
    sed -E '1!{/^Warning:/,$d}; s/^ +//; s/ at path "[^"]*"//g; s/(: [^:]+)\1+$/\1/' | paste --serial --delimiters ' ') && return 1 || return 0
}

# Whether all operations since the first are of a rebase or its way back: one that was cut off has not written
# down its last.
only_rebased_since() { # only_rebased_since <operation> [<what else may be, as a regular expression>]
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
# jj takes in what somebody has edited as it begins a step, after `before_op` was noted: that is where to go back to.
took_in_since() { # took_in_since <operation> <first words of the step's own operation>: in REPLY, the first where there was nothing
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

# jj reads no tree with a name that is not UTF-8, and names the tree alone: the file, as a remedy in REPLY.
misnamed() {
  REPLY=$(repo_git ls-tree -r -z --name-only "$remote_commit" 2>/dev/null | LC_ALL=C.UTF-8 grep -zavx -m 1 '.*' | tr -d '\0')
  if [[ -n $REPLY ]]; then printf -v REPLY '; rename %q: its name is not UTF-8' "$REPLY"; fi
}

# What an operation has of commits and names, but for what is hidden.
view_of() { # view_of <operation>
  repo_jj log --no-graph --at-operation "$1" --revisions 'visible_heads() | @ | bookmarks() | remote_bookmarks() | tags()' \
    --template 'commit_id ++ if(current_working_copy, " @ ") ++ local_bookmarks ++ " " ++ remote_bookmarks ++ " " ++ tags ++ "\n"'
}

# As it was at `before_op`, unless somebody has been at work in it since: what they did is not to be lost.
# Fails with the reason in REPLY: 1 where it may work the next time, 2 where it never will.
go_back() {
  local current said
  if ! said=$(repo_jj operation show --no-op-diff --ignore-working-copy "$before_op" 2>&1 >/dev/null); then
    # jj's log of operations was shortened meanwhile
    if [[ $said == *'No operation ID matching'* ]]; then REPLY='jj has forgotten how it was' && return 2; fi
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
  # an earlier run may have come back already
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
  REPLY=${REPLY:-it is not as it was}
  return 1
}

# An operation that outlived a power cut, where its commits did not, lets jj read nothing any more: jj brings the one
# to the disk at once, and not the others. Where it is of this step, jj is put back to before it, and so are the files.
forget_unwritten() {
  local from
  only_rebased_since "$before_op" 'commit |snapshot working copy' || return 1
  from=$(repo_jj log --no-graph --at-operation "$before_op" --revisions @ --template commit_id) || return 1
  say "commits of an operation that was cut off are lost, and it is taken back"
  # the commit that they were on the way to is lost, and had these files
  if [[ -n $remote_commit ]]; then
    as_user 600 bash -euo pipefail -c "$(declare -f put_files_back begun); put_files_back $from $remote_commit" || return 1
  fi
  # shellcheck disable=SC2016 # another bash reads it
  as_user 20 bash -euo pipefail -c 'cp -T --preserve .jj/copy-before/checkout .jj/working_copy/checkout
    cp -T --preserve .jj/copy-before/tree_state .jj/working_copy/tree_state
    cd .jj/repo/op_heads/heads; : >"$1"; find . -type f ! -name "$1" -delete' - "$before_op"
}
# What jj knows of the files, as it was when `before_op` was noted.
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

# Cut off after it had moved HEAD and before it wrote that down, jj's next start would take HEAD for moved by hand.
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
    # as jj names it
    repo_git symbolic-ref HEAD refs/jj/root || return
    repo_git read-tree --empty || true
  else
    repo_git update-ref --no-deref HEAD "$1" || return
    repo_git read-tree HEAD || true
  fi
}
# Whether the step has put HEAD there: onto what it moves things to, to what was there before, or to another
# version of that or of the working copy.
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

# A checkout that was cut off leaves some files as they are to be and some as they were, and jj would take
# that for edits. So they are put back to what jj knows first, and then taken to where they are to be.
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

# Runs as the user. A file is put back where it holds the beginning of what it was or was to be, or is gone:
# all else is an edit of somebody's.
# shellcheck disable=SC2317,SC2329 # bash gets its text
put_files_back() { # put_files_back <commit of the files> <commit that they were on the way to>
  local row file mode from to pass
  # first what is new: its room may be needed, and a directory be where a file was
  for pass in new old; do
    while IFS='' read -r -d '' row && IFS='' read -r -d '' file; do
      read -r mode _ from to _ <<<"${row#:}"
      case $pass$mode in new000000 | old1[02]*) ;; *) continue ;; esac
      # text of a conflict, which git does not have
      if [[ $file == .jjconflict-* ]]; then continue; fi
      if [[ $pass == old && -d $file && ! -L $file ]]; then rmdir "$file" 2>/dev/null || continue; fi
      if [[ -e $file || -L $file ]]; then
        # not touched since jj looked at it last
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

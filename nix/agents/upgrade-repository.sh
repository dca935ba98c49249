# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# The repository that the host is upgraded from. It belongs to its user, and every step in it runs as that
# user. What is fetched goes to a ref of the upgrade's own first, so that a revision which is refused
# leaves the repository untouched: not even jj's operation log has a line of it.

repository=$UPGRADE_REPOSITORY
trunk_ref=refs/nix-local-upgrade/trunk
before_op='' after_op=''
head_op='' head_commit='' # git's HEAD, and the operation of jj which it belongs to
# what moving to the remote's commit writes to the working copy, there and back: KiB and files
checkout_kib=0 checkout_files=0
user_group='' user_environment=() own_environment=()
declare -A descent=()

# What `as_user` needs to know of the user, once for all commands.
know_user() {
  local home
  eval "home=~$UPGRADE_USER"
  user_group=$(id --group "$UPGRADE_USER" || true)
  # COLUMNS: without a terminal, jj starts a program twice to ask for its width
  user_environment=("HOME=$home" "USER=$UPGRADE_USER" "LOGNAME=$UPGRADE_USER" "PATH=$PATH" LC_ALL=C.UTF-8
    GIT_TERMINAL_PROMPT=0 COLUMNS=80 "${durable[@]}")
  mapfile -t own_environment < <(compgen -e)
}

# Runs a command in the repository as its user, with nothing of this program's environment.
as_user() { # as_user <seconds> <command...>
  local limit=$1
  shift
  # the lock stays with the upgrade, whatever a command leaves running
  (
    cd "$repository" || exit
    export -n "${own_environment[@]}"
    export "${user_environment[@]}"
    exec timeout --kill-after=10 "$limit" setpriv --reuid "$UPGRADE_USER" --regid "$user_group" --init-groups "$@"
  ) </dev/null 9>&-
}
repo_git() { as_user 120 git "$@"; }
repo_jj() { as_user 120 jj --repository "$repository" --no-pager --color never "$@"; }

# Also takes in what was edited by hand since jj last looked, unless told not to.
operation() { repo_jj op log --no-graph --limit 1 --template id "$@"; } # operation [<options of jj>]

# Whether one commit is the other or comes from it. Commits never change, so no question is put to git
# twice; and where one comes from the other, the other cannot come from it.
descends() { # descends <from> <commit>
  if [[ $1 == "$2" ]]; then return; fi
  if [[ -z ${descent["$1 $2"]-} ]]; then
    if repo_git merge-base --is-ancestor "$1" "$2" 2>/dev/null; then
      descent["$1 $2"]=yes descent["$2 $1"]=no
    else
      descent["$1 $2"]=no
    fi
  fi
  [[ ${descent["$1 $2"]} == yes ]]
}

# What `finished` wants to know of the working copy, for jj.
finished_template='commit_id ++ " " ++ if(description, "yes", "no") ++ " " ++ parents.map(|c| c.commit_id()).join(",")'

# The commit to deploy: the last one that is finished. jj's working copy counts once it has a description.
finished() { # finished <commit of the working copy> <whether it is described> <its parents>: in REPLY
  if [[ $2 == yes || $3 == *,* ]]; then REPLY=$1; else REPLY=$3; fi
}

find_finished() {
  local at
  at=$(repo_jj log --no-graph --revisions @ --template "$finished_template" 2>"$work/said") || return
  # shellcheck disable=SC2086 # three words
  finished $at
  candidate=$REPLY
}

open_repository() {
  [[ -d $repository ]] || stop failed "No repository at $repository"
  [[ -d $repository/.jj && -e $repository/.git ]] || stop failed "$repository is no colocated jj repository"
  [[ ! -s $repository/.git/shallow ]] ||
    stop failed "$repository is a shallow clone, which Nix does not read: \`git -C $repository fetch --unshallow\` makes it whole"
}

# The commit that is deployed if the remote brings nothing, and what both together are known by.
read_repository() {
  if ! find_finished; then
    # left by whatever was cut off between an operation and the files of the working copy
    finish_checkout '' || stop failed "Cannot read the repository: $REPLY"
    find_finished || stop_because 'read the repository'
  fi
  if [[ $candidate =~ ^0*$ ]]; then stop failed "The repository has no commit"; fi
  revision=$remote_commit
  # with commits of one's own: their ids stay the same, as a refusal puts them back
  if ! descends "$candidate" "$remote_commit"; then revision+="+$candidate"; fi
}

fetch_failed() { # fetch_failed <exit code> <what was said>
  local code=$1 said=$2 line
  if [[ $said == *"find remote ref"* ]]; then stop failed "The remote has no branch $UPGRADE_BRANCH"; fi
  because "$said"
  line=${REPLY:-git ended with $code}
  judge_remote "$said"
  if [[ $verdict == failed && -z $remedy && ($code == 124 || $code == 137) ]]; then
    stop offline "The remote did not answer within $UPGRADE_FETCH_TIMEOUT s"
  fi
  if [[ $verdict == offline ]]; then stop offline "Cannot reach the remote: $line"; fi
  if [[ $line == *chown* ]]; then remedy=''; fi
  if [[ $remedy == *certificate* ]]; then
    if [[ $UPGRADE_MODE == local ]]; then
      judge_certificate "$(repo_git remote get-url origin || true)" as_user 30
    else
      judge_certificate "${UPGRADE_FLAKE_URL#git+}" timeout 30
    fi
  fi
  stop failed "Cannot fetch $UPGRADE_BRANCH: $line${remedy:+; $remedy}"
}

# because <what was said>: why a step in the repository failed, in REPLY; and where files there are not its
# user's, as after `sudo git pull`, the first of them and how to get them back
because() {
  local line
  why "$1"
  line=$REPLY
  if [[ $UPGRADE_MODE == local && ${1,,} == *@(permission|ownership|not permitted)* ]]; then
    not_of "$UPGRADE_USER" "$repository"
    line+=$REPLY
  fi
  REPLY=$line
}
stop_because() { # stop_because <what cannot be done>: by what was said last
  because "$(<"$work/said")"
  stop failed "Cannot $1: $REPLY"
}

# One ref that is not whole, and git refuses every fetch. Those of the upgrade's own are made anew.
drop_broken_refs() {
  local ref text
  for ref in "$repository"/.git/refs/nix-local-upgrade/*; do
    [[ -f $ref && ! -L $ref ]] || continue
    # zeros are left out by `read`, and it fails where the end of the line is missing
    read -r text <"$ref" || true
    # nobody else writes here, so a lock is one that was left
    if [[ $ref != *.lock && $text =~ ^[0-9a-f]{40,64}$ ]]; then continue; fi
    say "not whole, and made anew: $ref"
    as_user 20 rm -f "$ref"
  done
}

fetch() {
  local said code=0 base
  open_repository
  drop_broken_refs
  # --refmap: the remote's branch is moved in the user's view only when its revision is accepted
  said=$(as_user "$UPGRADE_FETCH_TIMEOUT" git fetch --quiet --refmap= --no-tags --no-write-fetch-head \
    origin "+refs/heads/$UPGRADE_BRANCH:$trunk_ref" 2>&1) || code=$?
  [[ $code == 0 ]] || fetch_failed "$code" "$said"
  remote_commit=$(repo_git rev-parse "$trunk_ref")

  base=$deployed_remote
  if [[ -z $base ]]; then base=$(repo_git rev-parse --verify --quiet "refs/remotes/origin/$UPGRADE_BRANCH" || true); fi
  if [[ -n $base && $accepted != "$remote_commit" ]] && ! descends "$base" "$remote_commit"; then
    stop diverged "$UPGRADE_BRANCH was rewritten: ${remote_commit:0:12} does not descend from ${base:0:12}, which this host had; \`nix-local-upgrade --accept $remote_commit\` takes it"
  fi
  read_repository
}

measure_checkout() {
  local size
  checkout_kib=0 checkout_files=0
  while read -r size; do
    if [[ $size =~ ^[0-9]+$ ]]; then checkout_kib=$((checkout_kib + size / 512 + 8)) checkout_files=$((checkout_files + 2)); fi
  done < <(as_user 120 bash -c "git diff-tree -r --no-renames $candidate $remote_commit | cut -d ' ' -f 4 |
    git cat-file --batch-check='%(objectsize)'")
}

rebase_onto_remote() {
  repo_jj rebase --branch @ --onto "$remote_commit" >"$work/said" 2>&1 && return
  # A rebase that was put back, done again in the same second, gives the same commit, which jj refuses to make.
  grep --quiet 'Newly-created commit .* already exists' "$work/said" || return
  sleep 1.1
  repo_jj rebase --branch @ --onto "$remote_commit" >"$work/said" 2>&1
}

# jj ends well where git's own refs could not be moved, and only warns.
git_follows() { REPLY=$(grep --max-count 1 --after-context 9 '^Warning: Failed to' "$work/said" | grep -E '^(Warning|[0-9]+):' | paste --serial --delimiters ' ') && return 1 || return 0; }

rebase() {
  local files conflicted split
  # what was written lately may not be on the disk yet, and a power cut would take it
  sync --file-system "$repository"
  before_op=$(operation 2>"$work/said") || stop_because 'read the repository'
  head_op=$before_op head_commit=$(repo_git rev-parse --verify --quiet HEAD || true)
  begin repository
  if ! descends "$remote_commit" "$candidate"; then
    # jj takes in the moved ref as if it had fetched it
    repo_git update-ref "refs/remotes/origin/$UPGRADE_BRANCH" "$remote_commit" 2>"$work/said" ||
      stop_because "move the remote's branch"
    rebase_onto_remote || stop_because rebase
    git_follows || stop failed "Cannot rebase: $REPLY"
    read_rebased
    candidate=$REPLY
    if [[ -n $split ]]; then
      repo_jj bookmark set "$UPGRADE_BRANCH" --revision "$candidate" --allow-backwards >"$work/said" 2>&1 ||
        stop_because "move the bookmark $UPGRADE_BRANCH"
      git_follows || stop failed "Cannot move the bookmark $UPGRADE_BRANCH: $REPLY"
    fi
    after_op=$(operation --ignore-working-copy)
  else
    read_rebased
    after_op=$before_op
  fi
  sync --file-system "$repository"
  begin repository
  files=$(conflicts 2>"$work/said") || stop_because 'look for conflicts'
  [[ -z $files ]] || stop conflict "Conflict in ${files//$'\n'/, }"
}

# Finds with one start of jj what is on the remote's commit: the finished commit in REPLY, commits in conflict
# in `conflicted`, and in `split` whether the bookmark of the trunk is in two places. Edits since are not
# taken in: they would pass for the upgrade's own.
read_rebased() {
  local ours="conflicts() & ::@ & ~::$remote_commit" bookmark="bookmarks(exact:\"$UPGRADE_BRANCH\")" lines line what at=''
  lines=$(repo_jj log --no-graph --ignore-working-copy --revisions "@ | $bookmark | $ours" --template "
    if(current_working_copy, \"at \" ++ $finished_template ++ \"\\n\")
    ++ if(self.contained_in('$ours'), \"conflicted \" ++ commit_id ++ \"\\n\")
    ++ if(local_bookmarks.any(|b| b.name() == \"$UPGRADE_BRANCH\" && b.conflict()), \"split\\n\")" 2>"$work/said") ||
    stop_because 'read the repository'
  conflicted='' split=''
  while read -r what line; do
    case $what in
      at) at=$line ;;
      conflicted) conflicted+="$line " ;;
      split) split=yes ;;
    esac
  done <<<"$lines"
  # shellcheck disable=SC2086 # three words
  finished $at
}

# Files in conflict: those that jj knows of, and those that were committed with the markers in them.
conflicts() {
  local each file marked
  if [[ -n $conflicted ]]; then
    for each in $conflicted; do
      repo_jj resolve --list --revision "$each" | sed -E 's/ {2,}[0-9]+-sided conflict.*$//'
    done | sort --unique
    return
  fi
  while IFS= read -r file; do
    if [[ $file == .jjconflict-* ]]; then echo "$file"; fi
  done < <(repo_git ls-tree --name-only "$candidate")
  # what cannot be looked at is not free of conflicts
  wait "$!" || return
  # whoever accepts a commit by its name has seen it
  if [[ $accepted == "$remote_commit" ]]; then return; fi
  mapfile -d '' -t marked < <(repo_git grep -z --files-with-matches -I --all-match -e '^<<<<<<< ' -e '^[=%+]\{7\}' -e '^>>>>>>> ' "$candidate")
  # 1: there is no such file
  wait "$!" || [[ $? == 1 ]] || return
  for file in "${marked[@]}"; do
    each=${file#*:}
    if has_new_markers "$each"; then echo "$each"; fi
  done
}

# Whether a file has regions between markers that are not deployed already, under this name or one that is gone. Text that shows
# how a conflict looks is none: what stands in a block of code of a document.
has_new_markers() { # has_new_markers <file>
  local text shown old
  text=$(repo_git show "$candidate:$1" | marked_regions "$1")
  [[ -n $text ]] || return 1
  [[ -n $deployed_commit ]] || return 0
  while IFS= read -r -d '' old; do
    if [[ ${old#*:} != "$1" ]] && repo_git cat-file -e "$candidate:${old#*:}" 2>/dev/null; then continue; fi
    shown=$(repo_git show "$old" | marked_regions '')
    if [[ $shown == *"$text"* ]]; then return 1; fi
  done < <(repo_git grep -z --files-with-matches -I -e '^<<<<<<< ' "$deployed_commit" 2>/dev/null)
}
# shellcheck disable=SC2016 # these are no commands
marked_regions() { # marked_regions <file's name>: the regions in standard input
  local blocks=''
  case ${1,,} in
    *.md | *.markdown | *.mdx | *.qmd | *.rmd) blocks='/^ *(```|~~~)/,/^ *(```|~~~) *$/d;' ;;
    *.org) blocks='/^ *#\+begin_/I,/^ *#\+end_/Id;' ;;
    *.adoc | *.asciidoc) blocks='/^(----|\.\.\.\.|```) *$/,/^(----|\.\.\.\.|```) *$/d;' ;;
  esac
  sed -n -E "${blocks}/^<<<<<<< /,/^>>>>>>> /p"
}

# git in the repository that the commit is in; fails where the flake came without one
commit_git() {
  if [[ $UPGRADE_MODE == local ]]; then
    repo_git "$@"
  else
    [[ $flake == "git+file://$state/"* ]] && git -C "$state/remote.git" "$@"
  fi
}
submodules() { commit_git ls-tree -r "$candidate" 2>/dev/null | sed -n -E 's/^160000 commit [0-9a-f]+\t//p'; }
submodule_of() { # submodule_of <file>: the one that it is in, in REPLY
  while IFS= read -r REPLY; do
    if [[ $1/ == "$REPLY"/* ]]; then return; fi
  done < <(submodules)
  return 1
}

# What the repository has beside the commit, and Nix leaves out unless the flake asks for it.
note_unfetched() {
  local asked each names=()
  asked="$flake $(commit_git show "$candidate:flake.nix" 2>/dev/null || true)"
  if [[ ! $asked =~ submodules[\ ]*=[\ ]*(1|true) ]]; then
    mapfile -t names < <(submodules)
    if ((${#names[@]})); then
      listed "${names[@]}"
      notes+=("submodules are not fetched, and empty in what is built: $REPLY")
    fi
  fi
  names=()
  if [[ ! $asked =~ lfs[\ ]*=[\ ]*(1|true) ]]; then
    while IFS= read -r -d '' each; do names+=("${each#*:}"); done < <(
      commit_git grep -z --files-with-matches -I --all-match -e '^version https://git-lfs\.github\.com/spec/' \
        -e '^oid sha256:[0-9a-f]\{64\}$' "$candidate" 2>/dev/null
    )
    if ((${#names[@]})); then
      listed "${names[@]}"
      notes+=("files of Git LFS are not fetched, and pointers in what is built: $REPLY")
    fi
  fi
}

# Whether all operations since the first are of a rebase or its way back: one that was cut off has not written
# down its last.
only_rebased_since() { # only_rebased_since <operation>
  local id what
  while read -r id what; do
    case "$id $what" in
      "$1 "*) return 0 ;;
      *" import git"* | *" rebase "* | *" point bookmark"* | *" export git"* | *" new empty commit" | *" restore to operation $1"*) ;;
      *) return 1 ;;
    esac
  done < <(repo_jj op log --no-graph --ignore-working-copy --limit 100 --template 'id ++ " " ++ description.first_line() ++ "\n"')
  return 1
}
nobody_else_since() { # nobody_else_since <operation> <current operation>
  [[ $2 == "$1" || $2 == "$after_op" ]] || only_rebased_since "$1"
}

# What an operation has of commits and names, but for what is hidden.
view_of() { # view_of <operation>
  repo_jj log --no-graph --at-operation "$1" --revisions 'visible_heads() | @ | bookmarks() | remote_bookmarks() | tags()' \
    --template 'commit_id ++ if(current_working_copy, " @ ") ++ local_bookmarks ++ " " ++ remote_bookmarks ++ " " ++ tags ++ "\n"'
}

# As it was, unless somebody has been at work in it since: what they did is not to be lost. A full disk may cut
# off any of it; the next run goes on from there.
restore_repository() {
  local current said
  [[ -n $before_op ]] || return 0
  if ! said=$(repo_jj operation show --no-op-diff --ignore-working-copy "$before_op" 2>&1 >/dev/null); then
    # jj's log of operations was shortened meanwhile
    case $said in
      *'No operation ID matching'*) not_restored+=("repository (jj has forgotten how it was)") ;;
      *) later "repository (${said##*$'\n'})" ;;
    esac
    return
  fi
  restore_head || { later "repository ($REPLY)"; return; }
  if ! current=$(operation 2>"$work/said"); then
    finish_checkout "$before_op" || { later "repository ($REPLY)"; return; }
    current=$(operation 2>"$work/said") || { later "repository ($(tail -n 1 "$work/said"))"; return; }
  fi
  if [[ $current == "$before_op" ]]; then return; fi
  if ! nobody_else_since "$before_op" "$current"; then
    not_restored+=("repository (changed by somebody else since)")
    return
  fi
  if [[ $phase == recover ]]; then
    if is_as_before "$current"; then return; fi
    # where all but HEAD is back already, jj has nothing to restore
    if [[ $(view_of "$current") == "$(view_of "$before_op")" ]]; then repo_jj new >"$work/said" 2>&1 || true; fi
  fi
  head_op=$current head_commit=$(repo_git rev-parse --verify --quiet HEAD || true)
  if ! write_transaction; then
    later "repository (cannot write $state/transaction.json)"
    return
  fi
  if repo_jj op restore "$before_op" >"$work/said" 2>&1 && git_follows && sync --file-system "$repository" &&
    current=$(operation 2>"$work/said") && is_as_before "$current"; then return; fi
  later "repository ($(tail -n 1 "$work/said"))"
}

is_as_before() { # is_as_before <current operation>
  [[ $(view_of "$1") == "$(view_of "$before_op")" ]] &&
    [[ $(repo_git rev-parse HEAD) == "$(repo_jj log --no-graph --ignore-working-copy --revisions 'first_parent(@)' --template commit_id)" ]]
}

# jj moves git's HEAD before it writes down the operation that does so. Cut off in between, its next start
# takes HEAD for moved by the user, and the files for edits of what is there.
restore_head() {
  local head id what unmoved=''
  [[ -n $head_op && -n $head_commit ]] || return 0
  head=$(repo_git rev-parse --verify --quiet HEAD || true)
  if [[ $head == "$head_commit" ]]; then return; fi
  while read -r id what; do
    if [[ $id == "$head_op" ]]; then unmoved=yes; fi
    # these alone leave HEAD where it is
    if [[ $what != *'import git refs'* && $what != *'point bookmark'* ]]; then break; fi
  done < <(repo_jj op log --no-graph --ignore-working-copy --limit 100 --template 'id ++ " " ++ description.first_line() ++ "\n"')
  if [[ -z $unmoved ]] || ! is_our_head "$head"; then return 0; fi
  if ! repo_git update-ref --no-deref HEAD "$head_commit"; then
    REPLY="git's HEAD cannot be moved"
    return 1
  fi
  repo_git read-tree HEAD || true
}
# Whether a rebase or its way back has put HEAD there: at the remote's commit, at what was there before, or
# at its like.
is_our_head() { # is_our_head <commit>
  local before
  if [[ $1 == "$remote_commit" ]]; then return; fi
  before=$(repo_jj log --no-graph --at-operation "$before_op" --revisions 'first_parent(@)' --template commit_id)
  [[ $1 == "$before" || $(authored "$1") == "$(authored "$before")" ]]
}
authored() { repo_git log --max-count 1 --format='%an %ae %at %B' "$1"; } # authored <commit>

# A checkout that was cut off leaves some files as they are to be and some as they were, and jj would take
# that for edits. So they are put back to what jj knows first, and then taken to where they are to be.
finish_checkout() { # finish_checkout <operation to go back to, or nothing>: fails with the reason in REPLY
  local said from to current
  if said=$(operation 2>&1 >/dev/null); then return; fi
  if [[ ! $said =~ 'not updated since operation '([0-9a-f]+) ]]; then
    REPLY=${said##*$'\n'}
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
    said=$(repo_jj op restore --ignore-working-copy "$1" 2>&1) || { REPLY=${said##*$'\n'}; return 1; }
  fi
  said=$(repo_jj workspace update-stale 2>&1) || { REPLY=${said##*$'\n'}; return 1; }
}

# Runs as the user. A file is put back where it holds the beginning of what it was or was to be, or is gone:
# all else is an edit of somebody's.
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

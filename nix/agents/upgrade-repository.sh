# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# The repository that the host is upgraded from. It belongs to its user, and every command in it runs as that
# user. Fetched commits first go to a ref that only the upgrade uses, so that a revision which is refused
# leaves the repository untouched: not even jj's operation log has a line of it.

repository=$UPGRADE_REPOSITORY
trunk_ref=refs/nix-local-upgrade/trunk
# size of moving the working copy to the remote's commit and back: KiB and files
checkout_kib=0 checkout_files=0
user_group='' user_environment=() own_environment=()
declare -A descent=()
# With a terminal, ssh would prompt there and hang until its time limit: a background program may not read from it.
detached=()
if { : </dev/tty; } 2>/dev/null; then detached=(setsid --wait); fi

# Collects what `as_user` needs to know of the user, once for all commands.
know_user() {
  local home name path
  eval "home=~$UPGRADE_USER"
  user_group=$(id --group "$UPGRADE_USER" || true)
  # git's credential helpers, ssh's proxy commands and programs in jj's settings may be in the user's own profile
  path=$PATH:$home/.nix-profile/bin:$home/.local/state/nix/profile/bin:/etc/profiles/per-user/$UPGRADE_USER/bin
  # COLUMNS: without a terminal, jj starts a program twice to ask for its width
  user_environment=("HOME=$home" "USER=$UPGRADE_USER" "LOGNAME=$UPGRADE_USER" "PATH=$path" LC_ALL=C.UTF-8
    GIT_TERMINAL_PROMPT=0 COLUMNS=80 "${durable[@]}")
  # proxies and certificates are set for the whole machine
  for name in {http,https,ftp,rsync,all,no}_proxy {HTTP,HTTPS,FTP,RSYNC,ALL,NO}_PROXY NIX_SSL_CERT_FILE SSL_CERT_FILE; do
    if [[ -n ${!name-} ]]; then user_environment+=("$name=${!name}"); fi
  done
  mapfile -t own_environment < <(compgen -e)
}

# Runs a command in the repository as its user, without this program's environment.
as_user() { # as_user <seconds> <command...>
  local limit=$1
  shift
  # the lock (9) is closed, so that a process which a command leaves running does not keep it
  (
    cd "$repository" || exit
    export -n "${own_environment[@]}"
    export "${user_environment[@]}"
    exec "${detached[@]}" timeout --kill-after=10 "$limit" setpriv --reuid "$UPGRADE_USER" --regid "$user_group" --init-groups "$@"
  ) </dev/null 9>&-
}
repo_git() { as_user 120 git "$@"; }
# options in `unsigned` make jj work without its user's signing key, which may need a passphrase
unsigned=()
repo_jj() { as_user 120 jj --repository "$repository" --no-pager --color never --config=ui.log-word-wrap=false --config=snapshot.auto-update-stale=false "${unsigned[@]}" "$@"; }
without_key() { # whether jj failed because of that key; from then on it works without
  [[ ${#unsigned[@]} == 0 ]] && grep --quiet 'Signing error' "$work/said" || return
  unsigned=(--config=signing.behavior=drop)
  notes+=("the rebased commits are unsigned, as there is no signing key here")
}

# Whether the second commit is the first or descends from it. Commits never change, so git is never asked twice; and
# where one descends from the other, the reverse is false.
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

# jj's template for the arguments of `finished`.
finished_template='commit_id ++ " " ++ if(description || parents.len() > 1 && empty, "yes", "no") ++ " " ++ parents.map(|c| c.commit_id()).join(",")'

# The commit to deploy: the last one that is finished. jj's working copy is finished once it has a description.
finished() { # finished <commit of the working copy> <whether it is described> <its parents>: in REPLY
  if [[ $2 == yes ]]; then REPLY=$1; else REPLY=$3; fi
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

# Finds the commit to deploy if the remote brings nothing, and the name of the revision that has both.
read_repository() {
  if ! find_finished && ! { without_key && find_finished; }; then
    # a jj command was cut off between its operation and the files of the working copy
    finish_checkout '' || stop failed "Cannot read the repository: $REPLY"
    find_finished || stop_because 'read the repository'
  fi
  if [[ $candidate == *,* ]]; then
    # neither parent alone is what would be deployed
    candidate=''
    stop failed "The working copy is a merge with edits that are not described: run \`jj describe\` or \`jj commit\` once they are finished"
  fi
  if [[ $candidate =~ ^0*$ ]]; then stop failed "The repository has no commit"; fi
  revision=$remote_commit
  # with local commits: their ids stay the same, because a rollback restores them
  if ! descends "$candidate" "$remote_commit"; then revision+="+$candidate"; fi
}

fetch_failed() { # fetch_failed <exit code> <what was said>
  local code=$1 said=$2 line
  if [[ $said == *"find remote ref"* ]]; then stop failed "The remote has no branch $UPGRADE_BRANCH"; fi
  because "$said"
  line=${REPLY:-git ended with $code}
  judge_remote "$said"
  if [[ $verdict == failed && -z $remedy && ($code == 124 || $code == 137) ]]; then
    stop offline "The remote did not answer within $UPGRADE_FETCH_TIMEOUT s (\`fetchTimeout\` allows more)"
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

# because <output>: why a step in the repository failed, in REPLY; and where files there do not belong to its
# user, as after `sudo git pull`, the first of them and how to get them back
because() {
  local line
  why "$1"
  line=$REPLY
  if [[ $UPGRADE_MODE == local && ${1,,} == *@(permission|ownership|not permitted)* ]]; then
    not_of "$UPGRADE_USER" "$repository"
    line+=$REPLY
  fi
  if [[ $line == *'Invalid UTF-8'* ]]; then
    misnamed
    line+=$REPLY
  fi
  REPLY=$line
}
stop_because() { # stop_because <what cannot be done>: gives the reason from the last output
  because "$(<"$work/said")"
  stop failed "Cannot $1: $REPLY"
}

# A single damaged ref makes git refuse every fetch. Removes damaged refs of the upgrade, which a fetch makes anew.
drop_broken_refs() {
  local ref text
  for ref in "$repository"/.git/refs/nix-local-upgrade/*; do
    [[ -f $ref && ! -L $ref ]] || continue
    # `read` drops zeros, and fails where the last line has no end
    read -r text <"$ref" || true
    # only the upgrade writes here, so any lock is stale
    if [[ $ref != *.lock && $text =~ ^[0-9a-f]{40,64}$ ]]; then continue; fi
    say "not whole, and made anew: $ref"
    as_user 20 rm -f "$ref"
  done
}

fetch() {
  local said code=0 base
  open_repository
  drop_broken_refs
  # --refmap: the remote's branch moves in the user's view only when its revision is accepted
  said=$(as_user "$UPGRADE_FETCH_TIMEOUT" git fetch --quiet --refmap= --no-tags --no-write-fetch-head \
    origin "+refs/heads/$UPGRADE_BRANCH:$trunk_ref" 2>&1) || code=$?
  [[ $code == 0 ]] || fetch_failed "$code" "$said"
  remote_commit=$(repo_git rev-parse "$trunk_ref")

  base=$deployed_remote
  # for a tarball this is a date, from which no commit descends
  if [[ ! $base =~ ^[0-9a-f]{40} ]]; then base=$(repo_git rev-parse --verify --quiet "refs/remotes/origin/$UPGRADE_BRANCH" || true); fi
  if [[ -n $base && $accepted != "$remote_commit" ]] && ! descends "$base" "$remote_commit"; then
    stop diverged "$UPGRADE_BRANCH was rewritten: ${remote_commit:0:12} does not descend from ${base:0:12}, which this host had; \`sudo nix-local-upgrade --accept $remote_commit\` takes it"
  fi
  read_repository
}

# A blank or a `?` in a URL would end the path.
url_path() { # url_path <path>
  jq --null-input --raw-output --arg path "$1" '$path | gsub("(?<odd>[^A-Za-z0-9._/@+~:=,-])"; .odd | @uri)'
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
  without_head repo_jj rebase --branch @ --onto "$remote_commit" >"$work/said" 2>&1 && return
  if without_key; then without_head repo_jj rebase --branch @ --onto "$remote_commit" >"$work/said" 2>&1 && return; fi
  # A rebase repeated in the same second in which it was undone gives the same commit, which jj refuses to make.
  grep --quiet 'Newly-created commit .* already exists' "$work/said" || return
  sleep 1.1
  without_head repo_jj rebase --branch @ --onto "$remote_commit" >"$work/said" 2>&1
}

rebase() {
  local conflicted split
  before_op=$(operation 2>"$work/said") || stop_because 'read the repository'
  keep_copy >"$work/said" 2>&1 || stop_because 'write to the repository'
  # recent writes may not be on the disk yet, and a power cut would lose them
  sync --file-system "$repository"
  begin repository
  if ! descends "$remote_commit" "$candidate"; then
    refuse_in_the_way
    # jj imports the moved ref as if it had fetched it
    repo_git update-ref "refs/remotes/origin/$UPGRADE_BRANCH" "$remote_commit" 2>"$work/said" ||
      stop_because "move the remote's branch"
    if ! rebase_onto_remote; then
      if [[ -n $REPLY ]]; then stop failed "Cannot rebase: $REPLY"; else stop_because rebase; fi
    fi
    if ! { git_follows "$work/said" export && head_follows; }; then stop failed "Cannot rebase: $REPLY"; fi
    took_in_since "$before_op" 'rebase '
    before_op=$REPLY
    read_rebased
    candidate=$REPLY
    if [[ -n $split ]]; then
      repo_jj --ignore-working-copy bookmark set "$UPGRADE_BRANCH" --revision "$candidate" --allow-backwards >"$work/said" 2>&1 ||
        stop_because "move the bookmark $UPGRADE_BRANCH"
      git_follows "$work/said" || stop failed "Cannot move the bookmark $UPGRADE_BRANCH: $REPLY"
    fi
    after_op=$(operation --ignore-working-copy)
  else
    # a conflict that the user settled in a later commit is settled
    read_rebased '@ | @-'
    after_op=$before_op
  fi
  sync --file-system "$repository"
  begin repository
  refuse_conflicts
}

# jj overwrites no untracked file. But it tracks the file from then on, and removes it on a rollback.
refuse_in_the_way() {
  local file at='' found names=()
  # shellcheck disable=SC2016 # for that shell
  read_whole as_user 120 bash -c 'set -o pipefail
    git diff-tree -r -z --no-renames --diff-filter=A --name-only "$@" | while IFS= read -rd "" file; do
      if [[ -e $file || -L $file ]]; then printf "%s\0" "$file"; fi
    done' - "$candidate" "$remote_commit" || stop failed "Cannot look for untracked files in the way of $UPGRADE_BRANCH"
  for file in "${found[@]}"; do
    at=${at:-$(repo_jj log --no-graph --ignore-working-copy --revisions @ --template commit_id)}
    repo_git cat-file -e "$at:$file" 2>/dev/null || names+=("$file")
  done
  if ((${#names[@]})); then
    listed "${names[@]}"
    stop failed "Untracked here, and in the way of what $UPGRADE_BRANCH adds: $REPLY; move it away"
  fi
}

refuse_conflicts() {
  local files
  files=$(conflicts 2>"$work/said") || stop_because 'look for conflicts'
  [[ -z $files ]] || stop conflict "Conflict in ${files//$'\n'/, }"
}

# Reads with one start of jj what is on the remote's commit: the finished commit in REPLY, commits in conflict
# in `conflicted`, and in `split` whether the bookmark of the trunk is in two places. Later edits are not
# snapshotted: they would pass for the upgrade's own.
read_rebased() { # read_rebased [<commits that must have no conflicts>]
  local ours="conflicts() & (${1-::@}) & ~::$remote_commit" bookmark="bookmarks(exact:\"$UPGRADE_BRANCH\")" lines line what at=''
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
  if [[ -n ${1-} && $REPLY == "${at%% *}" && $conflicted != *"$REPLY"* ]]; then conflicted=''; fi
}

# Files that contain conflict markers, or none.
# shellcheck disable=SC2317,SC2329 # read_whole calls it
marked() {
  commit_git grep -z --files-with-matches -I --all-match -e '^<<<<<<< ' -e '^[=%+]\{7\}' -e '^>>>>>>> ' "$candidate" || [[ $? == 1 ]]
}

# Files in conflict: those that jj knows of, and those that were committed with conflict markers.
conflicts() {
  local each file found
  if [[ -n ${conflicted-} ]]; then
    for each in $conflicted; do
      repo_jj resolve --list --revision "$each" | sed -E 's/ {2,}[0-9]+-sided conflict.*$//'
    done | sort --unique
    return
  fi
  # a commit that cannot be read does not pass as free of conflicts
  read_whole commit_git ls-tree -z --name-only "$candidate" || return
  for file in "${found[@]}"; do
    if [[ $file == .jjconflict-* ]]; then echo "$file"; fi
  done
  # a user who accepts a commit by its id has seen it
  if [[ $accepted == "$remote_commit" ]]; then return; fi
  read_whole marked || return
  for file in "${found[@]}"; do
    each=${file#*:}
    if has_new_markers "$each"; then echo "$each"; fi
  done
}

# Whether a file has regions between markers that are not deployed already, under this name or one that is gone. An
# example of a conflict in a code block of a document does not count.
has_new_markers() { # has_new_markers <file>
  local text shown old
  text=$(commit_git show "$candidate:$1" | marked_regions "$1")
  [[ -n $text ]] || return 1
  [[ -n $deployed_commit ]] || return 0
  while IFS= read -r -d '' old; do
    if [[ ${old#*:} != "$1" ]] && commit_git cat-file -e "$candidate:${old#*:}" 2>/dev/null; then continue; fi
    shown=$(commit_git show "$old" | marked_regions '')
    if [[ $shown == *"$text"* ]]; then return 1; fi
  done < <(commit_git grep -z --files-with-matches -I -e '^<<<<<<< ' "$deployed_commit" 2>/dev/null)
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

# git in the repository of the commit; fails where the flake came without one
commit_git() {
  if [[ $UPGRADE_MODE == local ]]; then
    repo_git "$@"
  else
    [[ $flake == "git+file://$state/"* ]] && env "${durable[@]}" git -C "$state/remote.git" "$@"
  fi
}
submodules() { commit_git ls-tree -r "$candidate" 2>/dev/null | sed -n -E 's/^160000 commit [0-9a-f]+\t//p'; }
submodule_of() { # submodule_of <file>: the submodule that has it, in REPLY
  while IFS= read -r REPLY; do
    if [[ $1/ == "$REPLY"/* ]]; then return; fi
  done < <(submodules)
  return 1
}

# Notes submodules and files of Git LFS, which Nix leaves out unless the flake asks for them.
note_unfetched() {
  local asked each names=() file=flake.nix
  if [[ $flake =~ [?\&]dir=([^\&]+) ]]; then file=${BASH_REMATCH[1]}/flake.nix; fi
  asked="$flake $(commit_git show "$candidate:$file" 2>/dev/null || true)"
  if [[ ! $asked =~ submodules[\ ]*=[\ ]*(1|true) ]]; then
    mapfile -t names < <(submodules)
    if ((${#names[@]})); then
      listed "${names[@]}"
      notes+=("submodules are not fetched, and are empty in the build: $REPLY")
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
      notes+=("files of Git LFS are not fetched, and are only pointers in the build: $REPLY")
    fi
  fi
}

# A full disk may cut off any of this; the next run continues from there.
restore_repository() {
  local code=0
  [[ -n $before_op ]] || return 0
  go_back || code=$?
  case $code in
    0) ;;
    1) later "repository ($REPLY)" ;;
    *) not_restored+=("repository ($REPLY)") ;;
  esac
}

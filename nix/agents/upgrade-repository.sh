# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# The repository that the host is upgraded from. It belongs to its user, and every step in it runs as that
# user. What is fetched goes to a ref of the upgrade's own first, so that a revision which is refused
# leaves the repository untouched: not even jj's operation log has a line of it.

repository=$UPGRADE_REPOSITORY
trunk_ref=refs/nix-local-upgrade/trunk
before_op='' after_op=''

as_user() { # as_user <seconds> <command...>
  local limit=$1 home
  shift
  eval "home=~$UPGRADE_USER"
  # the lock stays with the upgrade, whatever a command leaves running
  timeout --kill-after=10 "$limit" setpriv --reuid "$UPGRADE_USER" --regid "$(id --group "$UPGRADE_USER")" --init-groups \
    env -i "HOME=$home" "USER=$UPGRADE_USER" "LOGNAME=$UPGRADE_USER" "PATH=$PATH" LC_ALL=C.UTF-8 GIT_TERMINAL_PROMPT=0 \
    "${durable[@]}" "$@" </dev/null 9>&-
}
repo_git() { as_user 120 git -C "$repository" "$@"; }
repo_jj() { as_user 120 env --chdir "$repository" jj --repository "$repository" --no-pager --color never "$@"; }

# Also takes in what was edited by hand since jj last looked.
operation() { repo_jj op log --no-graph --limit 1 --template id; }

descends() { repo_git merge-base --is-ancestor "$1" "$2" 2>/dev/null; } # descends <from> <commit>

# The commit to deploy: the last one that is finished. jj's working copy counts once it has a description.
finished_commit() {
  local line at described parents
  line=$(repo_jj log --no-graph --revisions @ --template \
    'commit_id ++ " " ++ if(description, "yes", "no") ++ " " ++ parents.map(|c| c.commit_id()).join(",") ++ "\n"') || return
  read -r at described parents <<<"$line"
  if [[ $described == yes || $parents == *,* ]]; then echo "$at"; else echo "$parents"; fi
}

open_repository() {
  [[ -d $repository ]] || stop failed "No repository at $repository"
  [[ -d $repository/.jj && -e $repository/.git ]] || stop failed "$repository is no colocated jj repository"
}

# The commit that is deployed if the remote brings nothing, and what both together are known by.
read_repository() {
  if ! candidate=$(finished_commit 2>"$work/said"); then
    # left by whatever was killed between an operation and the files of the working copy
    repo_jj workspace update-stale >/dev/null 2>&1 || true
    candidate=$(finished_commit 2>"$work/said") || stop failed "Cannot read the repository: $(tail -n 1 "$work/said")"
  fi
  if [[ $candidate =~ ^0*$ ]]; then stop failed "The repository has no commit"; fi
  revision=$remote_commit
  # with commits of one's own: their ids stay the same, as a refusal puts them back
  if ! descends "$candidate" "$remote_commit"; then revision+="+$candidate"; fi
}

fetch_failed() { # fetch_failed <exit code> <what was said>
  local line
  line=$(grep --max-count 1 -E '^(fatal|error|ssh|Error):' <<<"$2" || tail -n 1 <<<"$2")
  case $2 in
    *"find remote ref"*) stop failed "The remote has no branch $UPGRADE_BRANCH" ;;
    # an answer that no waiting will change; all else is the network's
    *"bad object"* | *"bad ref"* | *"access denied"* | *"not exported"* | *"not appear to be a git repository"* | *"not found"* | *"Permission denied"* | \
      *"Authentication failed"* | *"Host key verification failed"* | *"No space left"* | *"dubious ownership"*)
      stop failed "Cannot fetch $UPGRADE_BRANCH: $line"
      ;;
  esac
  if [[ $1 == 124 || $1 == 137 ]]; then stop offline "The remote did not answer within $UPGRADE_FETCH_TIMEOUT s"; fi
  stop offline "Cannot reach the remote: $line"
}

# One ref that is not whole, and git refuses every fetch. Those of the upgrade's own are made anew.
drop_broken_refs() {
  local ref text
  for ref in "$repository"/.git/refs/nix-local-upgrade/*; do
    [[ -f $ref && ! -L $ref ]] || continue
    text=$(tr --delete '\0' <"$ref")
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
  said=$(as_user "$UPGRADE_FETCH_TIMEOUT" git -C "$repository" fetch --quiet --refmap= --no-tags --no-write-fetch-head \
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

rebase_onto_remote() {
  repo_jj rebase --branch @ --onto "$remote_commit" >"$work/said" 2>&1 && return
  # A rebase that was put back, done again in the same second, gives the same commit, which jj refuses to make.
  grep --quiet 'Newly-created commit .* already exists' "$work/said" || return
  sleep 1.1
  repo_jj rebase --branch @ --onto "$remote_commit" >"$work/said" 2>&1
}

rebase() {
  local files
  # what was written lately may not be on the disk yet, and a power cut would take it
  sync --file-system "$repository"
  before_op=$(operation)
  begin repository
  if ! descends "$remote_commit" "$candidate"; then
    # jj takes in the moved ref as if it had fetched it
    repo_git update-ref "refs/remotes/origin/$UPGRADE_BRANCH" "$remote_commit" || stop failed "Cannot move the remote's branch"
    rebase_onto_remote || stop failed "Cannot rebase: $(tail -n 1 "$work/said")"
    if [[ -n $(repo_jj bookmark list "$UPGRADE_BRANCH" --template 'if(conflict, "conflicted")' 2>/dev/null) ]]; then
      repo_jj bookmark set "$UPGRADE_BRANCH" --revision "$(finished_commit)" --allow-backwards >"$work/said" 2>&1 ||
        stop failed "Cannot move the bookmark $UPGRADE_BRANCH: $(tail -n 1 "$work/said")"
    fi
    candidate=$(finished_commit)
  fi
  after_op=$(operation)
  sync --file-system "$repository"
  begin repository
  files=$(conflicts)
  [[ -z $files ]] || stop conflict "Conflict in ${files//$'\n'/, }"
}

# Files in conflict: those that jj knows of, and those that were committed with the markers in them.
conflicts() {
  local each commits
  commits=$(repo_jj log --no-graph --revisions "conflicts() & ::@ & ~::$remote_commit" --template 'commit_id ++ "\n"')
  if [[ -n $commits ]]; then
    for each in $commits; do
      repo_jj resolve --list --revision "$each" | sed -E 's/ {2,}[0-9]+-sided conflict.*$//'
    done | sort --unique
    return
  fi
  {
    repo_git grep --files-with-matches -I --all-match -e '^<<<<<<< ' -e '^>>>>>>> ' "$candidate" | cut -d : -f 2- || true
    repo_git ls-tree --name-only "$candidate" | grep '^\.jjconflict-' || true
  } | sort --unique
}

# Whether all operations since the first are of a rebase: one that was killed has not written down its last.
only_rebased_since() { # only_rebased_since <operation>
  local id what
  while read -r id what; do
    case "$id $what" in
      "$1 "*) return 0 ;;
      *" import git"* | *" rebase "* | *" point bookmark"* | *" export git"*) ;;
      *) return 1 ;;
    esac
  done < <(repo_jj op log --no-graph --limit 10 --template 'id ++ " " ++ description.first_line() ++ "\n"')
  return 1
}

# As it was, unless somebody has been at work in it since: what they did is not to be lost.
restore_repository() {
  local current
  current=$(operation) || { not_restored+=("repository (cannot be read)"); return; }
  if [[ $current == "$before_op" ]]; then return; fi
  if [[ $current != "$after_op" ]] && { [[ -n $after_op ]] || ! only_rebased_since "$before_op"; }; then
    not_restored+=("repository (changed by somebody else since)")
    return
  fi
  repo_jj op restore "$before_op" >"$work/said" 2>&1 || not_restored+=("repository ($(tail -n 1 "$work/said"))")
  sync --file-system "$repository"
}

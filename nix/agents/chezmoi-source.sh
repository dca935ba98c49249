# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# The first steps of chezmoi-sync: its lock, the directory of the dotfiles, and what an earlier run left there.

take_lock() {
  [[ -d $state ]] || mkdir -p "$state"
  trap 'ended=yes; exit 1' USR1
  # the kernel holds the lock, so a crash cannot leave it behind; commands are started without it. Where there is no
  # room for the file, no process holds it.
  command exec 9>>"$state/lock" || finish failed "Cannot write $state/lock, $(owner_of "$state/lock")"
  if ! flock --nonblock 9; then
    echo "chezmoi-sync: locked: Another run has not ended yet (process $(<"$state/lock.pid"))"
    exit 0
  fi
  trap end EXIT
  look_how_it_ended "$state/status.json"
  echo $$ >"$state/lock.pid" || true
  work=$(mktemp -d) || finish failed 'Cannot make a temporary directory'
  echo "chezmoi-sync: phase: lock"
}

find_root() {
  local file hint=''
  if root=$(within "$limit" must chezmoi source-path); then return; fi
  file=$(sed -n -E 's/^chezmoi: open (\/[^:]+): .*/\1/p' "$work/must")
  if [[ -f $file ]]; then
    # a power cut leaves only zeros of a file that was new; a process that is about to write it has it locked
    if cmp --silent --bytes "$(stat --format %s "$file")" "$file" /dev/zero && flock --nonblock "$file" rm "$file"; then
      say "$file had nothing in it but zeros, and is removed: chezmoi begins a new one"
      root=$(must 'find the dotfiles' chezmoi source-path)
      return
    fi
    hint="; once it is moved away, chezmoi begins a new one"
  fi
  finish failed "Cannot find the dotfiles: $(because must)$hint"
}
# Leaves the directory of the repository in `repository` and chezmoi's root within it in `root`.
open_repository() {
  local tree
  find_root
  # `.chezmoiroot` may name a directory that is missing; the one around it still holds the dotfiles
  tree=$root
  until [[ -d $tree ]]; do tree=$(dirname "$tree"); done
  if [[ ! -d $root && ! -e $(git -C "$tree" rev-parse --show-toplevel 2>/dev/null)/.chezmoiroot ]]; then
    if [[ -z ${CHEZMOI_REPO_URL:-} ]]; then finish skipped "No dotfiles at $root, and no \`repoUrl\` to clone"; fi
    mkdir -p "$(dirname "$root")"
    if exists "$root"; then finish failed "Cannot clone to $root: something else is there"; fi
    # clone beside it and rename, so that a clone that was cut off does not pass for the dotfiles
    local clone
    clone=$(dirname "$root")/.chezmoi-sync.clone
    rm -rf "$clone"
    if ! within "$network_limit" clone "${jj[@]}" git clone --colocate "$CHEZMOI_REPO_URL" "$clone"; then
      unreached clone "Cannot clone $CHEZMOI_REPO_URL: $(because clone)"
    fi
    # the clone has the remote's default branch checked out, which must not pass for this host's
    if git -C "$clone" rev-parse --verify --quiet "$trunk" >/dev/null; then
      must "take the branch $branch" "${jj[@]}" --repository "$clone" new "$trunk_rev"
    fi
    sync --file-system "$clone"
    mv -T "$clone" "$root"
    tree=$root
    find_root # .chezmoiroot may move it
  fi
  if ! repository=$(git -C "$tree" rev-parse --show-toplevel 2>"$work/open"); then
    if (cd "$tree" && within "$limit" open_jj "${jj[@]}" root --ignore-working-copy >/dev/null); then
      finish failed "Cannot use $tree: jj keeps it without a git repository beside it: run \`jj git colocation enable\` there to add that"
    fi
    finish failed "Cannot use $tree: $(because open)"
  fi
  # a source without its own repository may lie in one of the whole home
  if [[ $HOME/ == "$repository"/* || $(pwd -P)/ == "$repository"/* ]]; then finish failed "Cannot use $root: it is not a repository of its own, but a directory of $repository"; fi
  refuse_configuration
  cd "$repository" || return
  git_dir=$(git rev-parse --git-dir)
  published_list=$git_dir/chezmoi-sync-published
  refuse_unended
  refuse_left_out
  drop_stale_locks "$git_dir"
  drop_unwritten "$git_dir"
  recover
  make_jj

  remote=$(git remote get-url origin 2>/dev/null || true)
  if [[ -n ${CHEZMOI_REPO_URL:-} && $remote != "$CHEZMOI_REPO_URL" ]]; then
    local verb=set-url
    [[ -n $remote ]] || verb=add
    must 'set the remote' "${jj[@]}" git remote "$verb" origin "$CHEZMOI_REPO_URL"
    remote=$CHEZMOI_REPO_URL
  fi
  look
  from=${refs[$trunk]-}
  to=$from
  refuse_other_branch
}
# Each edit in the repository is committed and pushed, and the upgrade of every host would deploy it, half finished.
refuse_configuration() {
  if [[ ${CHEZMOI_AUTO_COMMIT:-true} != true || -z ${CHEZMOI_UPGRADE_REPOSITORY:-} ]]; then return; fi
  if [[ $repository -ef $CHEZMOI_UPGRADE_REPOSITORY ]]; then
    finish failed "Cannot use $root: this host upgrades from $repository, too, and unfinished edits of its configuration would be committed, pushed and deployed; give the dotfiles a repository of their own, or turn \`autoCommit\` off"
  fi
}

# A user's commits on another branch must not reach other hosts. A branch without a remote was begun for commits to
# come, and jj would leave it with its next step.
refuse_other_branch() {
  local name upstream
  name=$(git symbolic-ref --quiet --short HEAD || true)
  if [[ -z $name || $name == "$branch" || -z $head || -z $from ]]; then return; fi
  upstream=$(git rev-parse --abbrev-ref '@{upstream}' 2>/dev/null || true)
  if [[ $upstream == "origin/$branch" ]] || { [[ $upstream == origin/* ]] && ancestor "$head" "$from"; }; then return; fi
  finish failed "$repository is on the branch \`$name\`, not on \`$branch\`: run \`git checkout --detach && git branch --delete $name\` there to share its commits, or commit and \`git checkout $branch\` to keep them to this host"
}

# A .jj whose creation was cut off has nothing in it that git lacks. jj cannot read it, so no one
# has used it since.
make_jj() {
  if [[ -e $state/making-jj && -d .jj ]] && ! within "$limit" made "${jj[@]}" op log --ignore-working-copy --limit 1 >/dev/null; then
    rm -rf .jj
  fi
  if [[ ! -d .jj ]]; then
    : >"$state/making-jj" && sync "$state"
    must "make $repository a jj repository" jj git init --colocate >/dev/null
    sync --file-system .jj
  fi
  rm -f "$state/making-jj"
}

# jj would take files that git was told to leave out of its working tree, or not to look at, for removed or edited. jj
# itself drops that setting for a file, but not for the checkout.
refuse_left_out() {
  local file=''
  must 'read the source' git ls-files -v -z >"$work/index"
  IFS= read -rd '' file < <(grep -z -m 1 '^[a-zS] ' "$work/index") || true
  if [[ -z $file && $(git config core.sparseCheckout || true) != true ]]; then return; fi
  file=${file#? }
  finish failed "Cannot use $repository: git was told to leave out ${file:-some files}, or to ignore its changes, which jj does not do: undo that (\`git sparse-checkout disable\`, \`git update-index --no-skip-worktree --no-assume-unchanged\`)"
}

# git stops in the middle where it waits for its user. jj would take the files for an edit, and end what git began; a
# bisection ends when HEAD moves.
refuse_unended() {
  local each
  for each in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD sequencer BISECT_LOG rebase-merge rebase-apply; do
    if exists "$git_dir/$each"; then finish conflict "git is in the middle of an operation, such as a merge, in $repository: \`git status\` there says how to end it"; fi
  done
}

# Recovers from a run that was cut off in a step of jj: its text must not pass for the user's.
recover() {
  local fields=()
  [[ -e $state/step && -d .jj ]] || return 0
  # a killed program leaves git's lock behind, whose age proves nothing, as the clock may have been set since
  drop_locks "$git_dir"
  mapfile -t fields <"$state/step"
  # one of an older version has two more lines
  before_op=${fields[0]-} remote_commit=${fields[3]:-${fields[1]-}}
  if [[ ! $before_op =~ ^[0-9a-f]+$ ]]; then
    say "removed, as it cannot be read: $state/step"
    rm -f "$state/step"
    return
  fi
  say 'an earlier run did not end, and its unfinished step is undone'
  back_from 'undo the unfinished step of an earlier run'
}

# Does not disturb a user who resolves a conflict in the source, or who works elsewhere in its history. Also
# snapshots the source's present text, so that nothing below can lose it.
refuse_unresolved() {
  local said facts=() fact open='' immutable='' aside='' branches=() question
  local conflict='conflicts() & ::@ & ~::remote_bookmarks()'
  # Commits on top of the working copy, or made by this host, that are nowhere else, as after `jj edit` or `git checkout`
  # of an older one: an apply would remove their changes from the home.
  local upon="heads((working_copies() | bookmarks() | remote_bookmarks()).. & (@+:: | description(regex:'^Dotfiles of $host: ')))"
  # commits that the user has begun on another branch, pushed or not
  local named="present($trunk_rev)..@ & (bookmarks() | remote_bookmarks())"
  question=("${jj[@]}" log --no-graph --revisions "@ | $conflict | $upon | $named" -T "
    if(self.contained_in('$conflict'), 'conflict ' ++ commit_id ++ \"\\0\")
    ++ if(self.contained_in(\"$upon\") && !divergent, 'upon ' ++ commit_id.short() ++ \"\\0\")
    ++ if(self.contained_in('$named'), bookmarks.map(|b| 'name ' ++ commit_id ++ ' ' ++ b.name() ++ \"\\0\").join(''))
    ++ if(current_working_copy, if(immutable, \"immutable\\0\") ++ 'copy ' ++ $working_copy ++ \"\\0\")")
  if ! within "$limit" stale "${question[@]}" >"$work/copy"; then
    # a run of jj that was killed may leave it stale
    if [[ $(<"$work/stale") == *'not updated since operation'* ]]; then
      finish_checkout '' || finish failed "Cannot finish a checkout of the source: $REPLY"
    fi
    must 'read the source' "${question[@]}" >"$work/copy"
    look
  fi
  mapfile -d '' -t facts <"$work/copy"
  for fact in "${facts[@]}"; do
    said=${fact#* }
    case $fact in
      'conflict '*) open=$said ;;
      'upon '*) is_fetched "$said" || aside=$said ;;
      'name '*)
        # jj quotes a name that has special characters
        said=${said//\"/}
        case ${said#* } in "$branch" | conflict/* | head-follows) ;; *) branches+=("$said") ;; esac
        ;;
      immutable) immutable=yes ;;
      'copy '*) copy=$said ;;
    esac
  done
  if [[ -n $immutable ]]; then
    finish failed "Nothing can be brought into the source: its working copy is immutable, by this user's setting of immutable_heads() (\`jj new\` in $repository begins another)"
  fi
  if [[ -n $open ]]; then unresolved "$open"; fi
  if [[ -n $aside ]]; then
    finish failed "The commit $aside is in neither the working copy of $repository nor the trunk: run \`jj new $aside\` there to go on with it, \`jj abandon $aside\` to drop it, or set a bookmark on it to keep it apart"
  fi
  if ((${#branches[@]})) && [[ -n $from ]]; then refuse_named "${branches[@]}"; fi
}
# Whether a commit came from the remote. A clone of this host's name, earlier or elsewhere, may have published it in a
# conflict that is settled or dropped by now.
is_fetched() { # <commit>
  # a jj that does not record that answers nothing
  [[ $(within "$limit" evolog "${jj[@]}" evolog --no-graph --ignore-working-copy --limit 1 --revision "$1" \
    -T 'if(operation, operation.description())') == 'fetch from git remote'* ]]
}
refuse_named() { # <commit and bookmark...>
  local each name remedy
  # the trunk may have them by now
  fetch || true
  for each; do
    if ancestor "${each%% *}" "$to"; then continue; fi
    name=${each#* }
    remedy="jj bookmark delete $name"
    if [[ -n ${refs[refs/remotes/origin/$name]-} ]]; then remedy="jj bookmark track $name@origin && $remedy && jj git push --deleted"; fi
    finish failed "$repository has commits of the bookmark \`$name\`: run \`$remedy\` there to share them, or \`jj new $branch@origin\` to keep them apart"
  done
}
unresolved() { # <commit>
  local files
  mapfile -t files < <("${jj[@]}" resolve --list 2>/dev/null | sed -E 's/ {2,}[0-9]+-sided.*//')
  add_conflict "${files[@]}"
  finish conflict "The source has conflicts to resolve: ${files[*]:-in ${1:0:12}}"
}
# A user may have begun to settle a conflict since a run began, and that text must not be applied.
refuse_begun() {
  local open
  refuse_unended
  open=$(revisions '@ & conflicts()')
  if [[ -n $open ]]; then unresolved "$open"; fi
}

# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Brings the remote's commits and this host's together, and pushes.

fetch() {
  if [[ -z $remote ]]; then
    echo "The dotfiles have no remote: set \`repoUrl\`" >"$work/fetch"
    return 1
  fi
  # all branches, even where git is set to fetch only one: other hosts publish their conflicts in others
  within "$network_limit" fetch "${jj[@]}" git fetch --remote origin --branch 'glob:*' || return 1
  look
  to=${refs[$trunk]-}
  if [[ -z $to ]]; then
    local others
    others=$(git for-each-ref --format='%(refname:lstrip=3)' refs/remotes/origin/ | grep -vx HEAD | paste -sd ' ' || true)
    if [[ -n $others ]]; then finish failed "The remote has no branch \`$branch\` (it has $others)"; fi
  fi
}

integrate_and_push() {
  local try before
  for ((try = 1; try <= tries; try++)); do
    enter rebase
    refuse_rewritten
    integrate
    remember_trunk
    refuse_markers
    if [[ ${CHEZMOI_AUTO_PUSH:-true} != true || -n $broken ]]; then return; fi
    enter push
    if push; then return; fi
    sleep "0.$((RANDOM % 10))" # so that two hosts that lost to a third do not collide again
    before=$to
    enter fetch
    fetch || end_offline fetch
    if [[ $to != "$before" ]]; then continue; fi
    end_offline push
  done
  finish failed "Cannot push: another host has pushed first, $tries times in a row"
}

# A rewritten trunk dropped commits on purpose; a rebase onto it would bring them back.
refuse_rewritten() {
  local last=''
  if [[ -s $state/trunk ]]; then read -r last <"$state/trunk" || true; fi
  if [[ -z $to || $last == "$to" ]]; then return; fi
  last=$(commit_of "${last:-${from:-none}}")
  if [[ -n $last ]] && ! ancestor "$last" "$to" && ancestor "$last" "$head"; then
    finish diverged "The trunk was rewritten: ${last:0:12} is not in ${to:0:12}; to accept that, run in $repository: \`jj rebase --source 'roots(${last:0:12}..@)' --onto $branch@origin && jj abandon '$branch@origin..${last:0:12}'\`"
  fi
}
# Call this once the trunk is in the source: one that conflicts is not, and would hide that an earlier one was rewritten.
remember_trunk() {
  local last=''
  if [[ -s $state/trunk ]]; then read -r last <"$state/trunk" || true; fi
  if [[ -z $to || $last == "$to" ]]; then return; fi
  echo "$to" >"$state/trunk.new"
  mv "$state/trunk.new" "$state/trunk"
}

# Rebases this host's commits onto the trunk. If they conflict, undoes everything and ends the run.
integrate() {
  local merge files=()
  if [[ -z $to ]] || ancestor "$to" "$head"; then return; fi
  refuse_nested
  refuse_in_the_way
  if { [[ -z $head ]] || ancestor "$head" "$to"; } && [[ $(read_working_copy) == empty ]]; then
    # moves the empty working copy, too, because later edits go into it
    if rebase "$to" --source @ --onto "$trunk_rev"; then return; fi
  fi
  if compatible; then
    identity
    if rebase "$to" --branch @ --onto "$trunk_rev"; then return; fi
    # One commit may conflict where all together do not, or be another host's, which must not change.
    must 'merge the trunk' "${jj[@]}" new --no-edit @- "$trunk_rev" --message "Merge the trunk into dotfiles of $host"
    # a run that was cut off may have left its own merge
    merge=$(revisions "latest($trunk_rev+ & @-+)")
    if rebase "$merge" --source @ --onto "$merge"; then return; fi
    must 'take a merge back' "${jj[@]}" abandon "$merge"
  fi
  list_conflicts
  if ((!${#own_files[@]})); then
    # no commit conflicts, so the uncommitted edits do
    if ((!${#unsound[@]})); then
      conflicting "$(must 'read the source' "${jj[@]}" log --no-graph --revisions @ -T commit_id)" "$to"
      unsound=("${files[@]}")
    fi
    if ((!${#unsound[@]})); then mapfile -d '' -t unsound < <(differing "$to" HEAD); fi
    add_conflict "${unsound[@]:-all}"
  fi
  enter publish
  publish
  phase='done'
  summary
}

# jj takes these files for removed, which conflicts with the trunk's changes; and what is there is in no commit.
refuse_nested() {
  local each
  for each in "${nested[@]}"; do
    if [[ -n $(git --literal-pathspecs diff --name-only "$head...$to" -- "$each" 2>/dev/null) ]]; then
      finish failed "Cannot take the trunk: it changes $each, which has a repository of its own here: move its .git away"
    fi
  done
}

# jj leaves untracked files where they are, even where the trunk has a file. From then on it takes them for an edit of
# the trunk's file, or that file for removed.
refuse_in_the_way() {
  local file part in_the_way=()
  local -A theirs=()
  git ls-files --others -z --exclude=.jj >"$work/others"
  [[ -s $work/others ]] || return 0
  while IFS= read -rd '' file; do
    theirs["/$file"]='file'
    while [[ $file == */* ]]; do
      file=${file%/*}
      theirs["/$file"]=directory
    done
  done < <(git diff --name-only -z --no-renames --ignore-submodules=all --diff-filter=A \
    "${head:-$(git hash-object -t tree /dev/null)}" "$to")
  while IFS= read -rd '' file; do
    part=${file%/}
    while [[ $part == */* && ${theirs["/$part"]-} != file ]]; do part=${part%/*}; done
    if [[ ${theirs["/$part"]-} == file ]]; then
      if [[ $part == "$file" ]] && git cat-file blob "$to:$file" | cmp -s - "$file"; then continue; fi
    elif [[ -z ${theirs["/${file%/}"]-} ]]; then
      continue
    fi
    in_the_way+=("$file")
  done <"$work/others"
  ((${#in_the_way[@]})) || return 0
  printf -v file '%s, ' "${in_the_way[@]}"
  finish failed "Cannot take the trunk: ${file%, } here is in the way, and in no commit: move it away"
}

# Fails where it leads to a conflict, or would change commits of others: then everything is undone.
rebase() { # <where it leads> <options>
  begin 'rebase' "$1"
  shift
  if ! rebase_once "$@"; then
    # A rebase repeated in the same second in which it was undone gives the same commit, which jj refuses to make.
    if grep --quiet 'Newly-created commit .* already exists' "$work/step"; then
      sleep 1.1
      rebase_once "$@" || give_up 'rebase' "$REPLY"
    elif grep --quiet 'is immutable' "$work/step"; then
      rm -f "$state/step"
      return 1
    else
      give_up 'rebase' "$REPLY"
    fi
  fi
  if [[ -z $(revisions "conflicts() & $trunk_rev..@") ]]; then
    end_step 'rebase'
    look
    return
  fi
  # edits that were snapshotted as it began are not the rebase's
  took_in_since "$before_op" 'rebase '
  before_op=$REPLY
  back_from 'end a rebase'
  look
  return 1
}
rebase_once() {
  : >"$work/step"
  without_head within "$limit" step "${jj[@]}" rebase "$@"
}

# -- steps that move git's HEAD

# Runs a command of jj that commits the files, or undoes it and ends the run.
step() { # <what> <arguments of jj...>
  begin "$1" ''
  within "$limit" step "${jj[@]}" "${@:2}" || give_up "$1" ''
  end_step "$1"
}
# A step that cannot be recorded is not begun: if it were cut off, the next run could not continue.
begin() { # <what> <commit that it leads to>
  before_op=$(must 'read the history' "${jj[@]}" operation log --no-graph --limit 1 -T 'id')
  keep_copy 2>"$work/must" || finish failed "Cannot $1: $(because must)"
  # recent writes may not be on the disk yet, and a power cut would lose them
  must "$1" sync --file-system .
  after_op='' remote_commit=$2
  note_step || finish failed "Cannot $1: $REPLY"
}
end_step() { # <what>
  head_follows || give_up "$1" "$REPLY"
  sync --file-system . # until then a power cut may lose a part of it
  rm -f "$state/step"
}
give_up() { # <what> <reason, or what jj said last>
  local said=${2:-$(because step)}
  if go_back; then rm -f "$state/step"; fi
  finish failed "Cannot $1: $said"
}
# Goes back to the state before a step, unless a user has changed something since: then everything stays.
back_from() { # <what>
  local code=0
  go_back || code=$?
  if [[ $code == 1 ]]; then finish failed "Cannot $1: $REPLY"; fi
  rm -f "$state/step"
}

# Whether the commits here can be merged with the trunk, tested without a change of the source. chezmoi, too,
# must be able to read the result: two hosts may give a file different attributes, which no line of text shows.
compatible() {
  local tree code=0
  unsound=()
  tree=$(merged HEAD "$to") || code=$?
  # two histories without a common commit are not merged
  if ((code)) && { [[ -n $tree ]] || ! git merge-base HEAD "$to" >/dev/null 2>&1; }; then return 1; fi
  if ((code)) || ! { mkdir "$work/tree" "$work/empty" && files_of "$tree"; }; then
    finish failed "Cannot try a merge with the trunk: $(because archive)"
  fi
  # an empty home, because files there are no fault of the source
  if ! within "$limit" managed chezmoi --source "$work/tree" --destination "$work/empty" managed >/dev/null; then
    mapfile -t unsound < <(grep -oE "$work/tree/[^,)]+" "$work/managed" | sed "s|^$work/tree/||")
    if ((!${#unsound[@]})); then finish failed "Cannot read the source with the trunk: $(because managed)"; fi
  fi
  rm -rf "$work/tree" "$work/empty"
  ((!${#unsound[@]}))
}

# Writes the files of a commit without git's filters: jj knows none either, and one, such as Git LFS's, may need what
# cannot be had.
files_of() { # files_of <tree>
  local filter filters=()
  while IFS= read -rd '' filter; do
    filters+=(-c "$filter.smudge=" -c "$filter.process=" -c "$filter.required=false")
  done < <(git config --null --name-only --get-regexp '^filter\.' | sed -z 's/\.[^.]*$//' | sort -zu)
  within "$limit" archive git "${filters[@]}" archive --output="$work/tree.tar" "$1" || return
  tar -x -C "$work/tree" -f "$work/tree.tar" && rm "$work/tree.tar"
}

# Markers left in a file are text to jj, and would be pushed and applied.
refuse_markers() {
  local at=$head changed=() marked=() names
  # edits that the user commits by hand are applied before that
  if [[ ${CHEZMOI_AUTO_COMMIT:-true} != true ]]; then
    at=$(must 'read the source' "${jj[@]}" log --no-graph --revisions @ -T commit_id)
  fi
  if [[ -z $to || -z $at || $to == "$at" ]]; then return; fi
  mapfile -d '' -t changed < <(git diff --name-only -z --no-renames --diff-filter=d "$to" "$at")
  mapfile -d '' -t marked < <(comm -z -23 <(with_markers "$at") <(with_markers "$to"))
  ((${#marked[@]})) || return 0
  add_conflict "${marked[@]}"
  printf -v names '%s, ' "${marked[@]}"
  finish conflict "Conflict markers are left in ${names%, }"
}
# Which of `changed` have markers. git searches, because a file may be larger than bash has room for. A line that only
# jj writes counts by itself: a user who settles a conflict by hand may leave one of five.
with_markers() { # <commit>
  local of_jj='^([<>]{7,} [Cc]onflict [0-9]+ of [0-9]+|%{7,} diff from: |\\{7,} +to: |[-+%]{7,} (Contents of|Changes from) '
  of_jj+='|[-+<>|]{7,} [k-z]{8,}(/[0-9]+)? [0-9a-f]{8,}( |$))'
  {
    search_changed "$1" --all-match -e '^<{7,} ' -e '^>{7,} '
    search_changed "$1" -e "$of_jj"
  } | sort -zu
}
search_changed() { # <commit> <options and patterns of git grep...>
  ((!${#changed[@]})) || printf '%s\0' "${changed[@]}" | xargs -0 git --literal-pathspecs grep -lzaE "${@:2}" "$1" -- |
    sed -z 's/^[^:]*://' || true # git's exit status says whether there were any
}

push() {
  if [[ $head == "$to" || -z $head ]]; then return 0; fi
  must 'move the bookmark' "${jj[@]}" bookmark set "$branch" --revision "$head" --allow-backwards
  if push_branch; then
    pushed=$head
    look
    to=${refs[$trunk]-}
    remember_trunk
    return 0
  fi
  return 1
}

push_branch() {
  local command=("${jj[@]}" git push --remote origin --bookmark "exact:$branch" --allow-empty-description)
  within "$network_limit" push "${command[@]}" && return
  # a repository that git cloned does not track its remote's branch yet
  grep -qi 'non-tracking' "$work/push" &&
    within "$limit" push "${jj[@]}" bookmark track "$branch@origin" &&
    within "$network_limit" push "${command[@]}"
}

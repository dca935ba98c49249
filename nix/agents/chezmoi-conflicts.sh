# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Finds conflicts, and shows them to users of this host and of others.

# Prints the merged tree of two commits; exits with 1 where they conflict.
merged() { # <commit> <commit>
  git -c merge.renames=false merge-tree --write-tree --no-messages "$1" "$2" 2>/dev/null
}
# Leaves the files in which two commits conflict in `files`. Where one commit has a directory in place of a file,
# git names the file `<file>~<commit>`.
conflicting() { # <commit> <commit>
  local file
  files=()
  while IFS= read -rd '' file; do
    file=${file%"~$1"}
    files+=("${file%"~$2"}")
  done < <(git -c merge.renames=false merge-tree --write-tree --name-only --no-messages -z "$1" "$2" 2>/dev/null | tail -zn +2)
}

# The files that the second commit has changed, or all that differ where there is no common commit.
differing() { # <commit> <commit>
  git diff --name-only -z "$1...$2" 2>/dev/null || git diff --name-only -z "$1" "$2"
}

list_conflicts() {
  local ref whose files
  [[ -n $to ]] || return 0
  if ! ancestor "$to" "$head" && ! ancestor "$head" "$to"; then
    conflicting "$head" "$to"
    ((!${#files[@]})) || add_conflict "${files[@]}"
  fi
  for ref in "${published[@]}"; do
    if published_here "$ref" || ancestor "${refs[$ref]}" "$to"; then continue; fi
    whose=${ref#refs/remotes/origin/conflict/}
    whose=${whose%.former-*}
    whose=${whose%.home}
    conflicting "${refs[$ref]}" "$to"
    if ((!${#files[@]})); then mapfile -d '' -t files < <(differing "$to" "$ref"); fi
    note_conflict "$whose" "${files[@]}"
  done
}
note_published() { # <commit>
  if grep --quiet --no-messages --line-regexp "$1" "$published_list"; then return; fi
  echo "$1" >>"$published_list" && sync "$published_list"
}
# Whether this clone has published it, or has it in its HEAD.
published_here() { # <ref of the remote>
  [[ $1 == "refs/remotes/origin/$mine" || $1 == "refs/remotes/origin/$mine.home" ]] || return 1
  grep --quiet --no-messages --line-regexp "${refs[$1]}" "$published_list" || ancestor "${refs[$1]}" "$head"
}

# Publishes this host's side of a conflict, or withdraws it once there is none. An edit at home and a commit
# may conflict at once, with different base commits, so that no single commit holds both.
publish() {
  local own='' own_home='' ref
  list_conflicts
  if ((${#own_files[@]} && !${#home_sides[@]})) || { [[ -n $to ]] && ! ancestor "$to" "$head"; }; then own=$head; fi
  # a commit that the trunk has says nothing about edits that are in no commit
  if ancestor "$own" "${to:-none}"; then own=''; fi
  if [[ ${CHEZMOI_AUTO_PUSH:-true} != true ]]; then return; fi
  if ((${#home_sides[@]})); then
    if [[ -n $own ]]; then own_home=$(commit_of_home "$mine.home"); else own=$(commit_of_home "$mine"); fi
  fi
  announce "$mine" "$own"
  announce "$mine.home" "$own_home"
  for ref in "${published[@]}"; do
    if [[ $ref == "refs/remotes/origin/$mine.former-"* ]]; then announce "${ref#refs/remotes/origin/}" ''; fi
  done
}
announce() { # <bookmark> <commit, or empty for none>
  local there=${refs[refs/remotes/origin/$1]-}
  # recorded first: without a record, a published commit would pass for an earlier clone's
  if [[ -n $2 ]]; then note_published "$2" || finish failed "Cannot write $repository/$published_list"; fi
  if [[ $2 == "$there" ]]; then return; fi
  if [[ -n $there ]] && ! published_here "refs/remotes/origin/$1" && ! ancestor "$there" "${to:-none}"; then
    if [[ -z $2 ]] || ! push_bookmark "$mine.former-${there:0:12}" "$there"; then return; fi
  fi
  # the next run tries again
  push_bookmark "$1" "$2" || true
}
push_bookmark() { # <bookmark> <commit, or empty for none>
  local there=${refs[refs/remotes/origin/$1]-}
  if [[ $2 == "$there" ]]; then return; fi
  # the bookmark came from another clone
  if [[ -n $there ]]; then within "$limit" bookmark "${jj[@]}" bookmark track "$1@origin" || true; fi
  if [[ -n $2 ]]; then
    must 'name the conflict' "${jj[@]}" bookmark set "$1" --revision "$2" --allow-backwards
  else
    within "$limit" bookmark "${jj[@]}" bookmark delete "exact:$1" || true
  fi
  within "$network_limit" publish "${jj[@]}" git push --remote origin --bookmark "exact:$1" --allow-empty-description
}

# Makes a commit of the texts in $HOME that conflict with the source, on top of the commit that they were edited from.
commit_of_home() { # <bookmark that it gets>
  local side file base text tree previous
  export GIT_INDEX_FILE=$work/index
  base=${home_sides[1]}
  git read-tree "$base"
  for ((side = 0; side < ${#home_sides[@]}; side += 3)); do
    file=${home_sides[side]} text=${home_sides[side + 2]}
    git update-index --add --cacheinfo "100644,$(git hash-object -w --no-filters "$text"),$file"
  done
  tree=$(git write-tree)
  unset GIT_INDEX_FILE
  previous=${refs[refs/remotes/origin/$1]-}
  if [[ -n $previous && $(git rev-parse "$previous^{tree}") == "$tree" ]]; then echo "$previous" && return; fi
  local who=${USER:-$(id -un)} commit
  commit=$(GIT_AUTHOR_NAME=$who GIT_AUTHOR_EMAIL=$who@$host GIT_COMMITTER_NAME=$who \
    GIT_COMMITTER_EMAIL=$who@$host git commit-tree "$tree" -p "$base" -m "Home of $host, in conflict")
  # jj learns of a commit by its branch
  git update-ref "refs/heads/$1" "$commit"
  echo "$commit"
}

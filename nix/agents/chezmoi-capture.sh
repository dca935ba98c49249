# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Turns edits made here, at home and in the source, into a commit.

# Copies edits of targets in $HOME to the source, each compared with what chezmoi last wrote.
capture() {
  local row file targets=()
  uncaptured=()
  if ! compare; then
    # the trunk may have the repair, so only changes from here are held back
    broken="Cannot compare the targets with the source: $(because status)"
    return
  fi
  for row in "${rows[@]}"; do
    case $row in
      D*) keep "${row:3}" 'deleted here' ;;
      [MA]D*) keep "${row:3}" 'edited here, removed by the source' ;;
      A*) is_directory "$HOME/${row:3}" || targets+=("$HOME/${row:3}") ;;
      M*) targets+=("$HOME/${row:3}") ;;
    esac
  done
  ((${#targets[@]})) || return 0

  # one call for all targets, as each start of chezmoi is slow
  local facts=() unchanged=() each i
  local -A sum_of=()
  must "read chezmoi's state" chezmoi state dump --format=json >"$work/state"
  must 'read the source' chezmoi dump --format=json --recursive=false -- "${targets[@]}" >"$work/dump"
  must 'read the source' chezmoi managed --exclude=none --path-style=all --format=json >"$work/managed"
  printf '%s\0' "${targets[@]}" >"$work/names"
  # of each: the source file, what chezmoi last wrote and with which mode, and the mode in the source
  mapfile -d '' -t facts < <(jq -j --arg home "$HOME/" --rawfile names "$work/names" --slurpfile dump "$work/dump" \
    --slurpfile managed "$work/managed" '.entryState as $all | $names | rtrimstr("\u0000") | split("\u0000")[]
    | ltrimstr($home) as $target | $all[.] | $managed[0][$target].sourceAbsolute // "",
      if .type == "symlink" then .type else .contentsSHA256 // "" end, (.mode // 0) % 512, $dump[0][$target].perm
    | "\(.)\u0000"' "$work/state")
  ((${#facts[@]} == 4 * ${#targets[@]})) || finish failed "Cannot read chezmoi's state"
  while IFS= read -rd '' each; do sum_of["/${each:66}"]=${each:0:64}; done < <(for ((i = 0; i < ${#facts[@]}; i += 4)); do
    [[ ! -f ${facts[i]} ]] || printf '%s\0' "${facts[i]}"
  done | xargs -0 --no-run-if-empty sha256sum --zero -- 2>/dev/null)
  copy='' # no longer valid, as the source is about to change
  for i in "${!targets[@]}"; do
    capture_one "${targets[i]}" "${facts[@]:4*i:4}" "${sum_of["/${facts[4 * i]}"]-}"
  done
  if ((${#unchanged[@]})); then re_add_all "${unchanged[@]}"; fi
}
# A file that chezmoi refuses, as for a suspected secret, must not block the others; it is found by halves, as each
# start of chezmoi is slow. After a timeout each file is tried alone: the slow one would time out in each half.
re_add_all() { # <file...>
  local half=$(($# / 2)) each
  if re_add "$@"; then
    captured+=("${@#"$HOME/"}")
  elif (($# > 1)) && grep --quiet '^No end within' "$work/capture"; then
    for each; do re_add_all "$each"; done
  elif (($# > 1)); then
    re_add_all "${@:1:half}"
    re_add_all "${@:half+1}"
  else
    not_taken "$1"
  fi
}
not_taken() { # <file>
  local said
  said=$(because capture)
  if [[ $said == 'No end within'* ]]; then said+=" (chezmoi looks through it for secrets, unless its configuration says \`secrets = \"ignore\"\` below \`[add]\`)"; fi
  uncaptured+=("${1#"$HOME/"}: $said")
  keep "${1#"$HOME/"}" "cannot be captured: $said"
}
# chezmoi may be set to commit and push what it adds (`git.autoCommit`), which this program does itself: so chezmoi
# gets another repository, which ignores everything, and in which no template of the user's has its files.
re_add() { # [--dry-run] <file...>
  if [[ ! -e $work/apart ]]; then
    git init --quiet --template= "$work/apart" && mkdir "$work/apart/.git/info" && echo '*' >"$work/apart/.git/info/exclude"
  fi
  GIT_DIR=$work/apart/.git within "$limit" capture chezmoi re-add --no-tty "$@"
}

# Adds a target to `unchanged` where the source is still what the target was written from. If the source
# has changed, because the file was edited during a run, both are merged.
capture_one() { # <target> <source file> <what chezmoi last wrote there> <its mode> <the source's mode> <the source's sum>
  local file=$1 source=$2 target=${1#"$HOME/"} last=$3 mode=$4 perm=$5 sum=$6 path base each
  # chezmoi would give it a name in the source, which may be another file's
  if is_external "$target"; then keep "$target" 'of an external, edited here' && return; fi
  # chezmoi re-adds nothing there, and does not say so
  if [[ ${source#"$root"} == */external_*/* ]]; then
    keep "$target" "in a directory with \`external_\`, from which chezmoi takes no edit: copy it to $source, or take that by \`chezmoi apply\`" && return
  fi
  case ${source##*/} in
    *.tmpl | encrypted_*.tmpl.*) keep "$target" 'a template, edited here' && return ;;
    create_* | modify_* | symlink_* | remove_*) keep "$target" 'not a plain file' && return ;;
  esac
  if [[ ! -f $file || -L $file || ! -f $source ]]; then keep "$target" 'not a plain file' && return; fi
  # chezmoi wrote a link, as with `mode = "symlink"`, and an editor has replaced it by a file
  if [[ $last == symlink ]]; then keep "$target" 'not a plain file' && return; fi
  if [[ -z $last ]]; then keep "$target" 'was here before the dotfiles' && return; fi
  if [[ ${source##*/} == encrypted_* ]]; then
    must "read $target" chezmoi cat "$file" >"$work/theirs"
    sum=$(sha256sum <"$work/theirs")
  fi
  if [[ ${sum%% *} == "$last" ]] && alike "$perm" "$mode"; then
    unchanged+=("$file")
    return
  fi
  if [[ ${source##*/} != encrypted_* ]]; then cp "$source" "$work/theirs"; fi

  path=$(realpath --relative-to=. "$source")
  cp "$file" "$work/ours"
  # a file that chezmoi refuses is neither merged nor published as a conflict
  if ! re_add --dry-run "$file"; then not_taken "$file" && return; fi
  # neither is one that was edited since chezmoi looked; the next round takes it in
  cmp --silent "$file" "$work/ours" || return 0
  base=$(commit_with "$path" "$last" "$work/base") || base=''
  if [[ -n $base && $((8#$(stat -c %a "$file" || echo 0))) == "$mode" ]] &&
    git merge-file --quiet -p "$work/ours" "$work/base" "$work/theirs" >"$work/merged"; then
    chmod --reference="$source" "$work/merged"
    # not beside the source, where any name may be another file's
    cp -p "$work/merged" "$git_dir/chezmoi-sync-merged"
    mv -T "$git_dir/chezmoi-sync-merged" "$source"
    # now chezmoi and git know exactly this text, so that the merged one overwrites no other
    must "capture $target" git hash-object -w --no-filters "$work/ours" >"$work/blob"
    must "capture $target" git update-ref "$merged_refs/$(<"$work/blob")" "$(<"$work/blob")"
    sum=$(sha256sum <"$work/ours")
    must "capture $target" chezmoi state set --bucket=entryState --key="$file" \
      --value="{\"type\":\"file\",\"mode\":$mode,\"contentsSHA256\":\"${sum%% *}\"}"
    captured+=("$target")
    return
  fi
  keep "$target" 'edited here and in the source'
  add_conflict "$path"
  # if no commit has the base, as after a rename, the edit is shown against HEAD, but no encrypted file in the clear
  if [[ -z $base && ${source##*/} != encrypted_* ]]; then base=$head; fi
  if [[ -n $base ]]; then
    # a copy, as the file may have changed by the time that it is published
    each=$work/home.${#home_sides[@]}
    cp "$work/ours" "$each"
    home_sides+=("$path" "$base" "$each")
  fi
}

forget_merged() {
  git for-each-ref --format='delete %(refname)' "$merged_refs/" | git update-ref --stdin || true
}

# Whether two modes are the same to chezmoi, which records three things of one and takes the rest from the umask.
alike() { # <mode> <mode>
  local each
  if [[ $1 == "$2" ]]; then return; fi
  if [[ $1 == *[!0-9]* ]]; then return 1; fi
  for each in 8#77 8#111 8#222; do
    if ((!($1 & each) != !($2 & each))); then return 1; fi
  done
}

# Prints the newest commit in which <file> has the content with <sum>, and writes the content to <where>.
commit_with() { # <file> <sum> <where>
  local commit sum
  while IFS= read -r commit; do
    git show "$commit:$1" >"$3" 2>/dev/null || continue
    sum=$(sha256sum <"$3")
    if [[ ${sum%% *} == "$2" ]]; then echo "$commit" && return; fi
  done < <(git --literal-pathspecs log --max-count=200 --format=%H HEAD -- "$1")
  return 1
}

# jj's template: whether the working copy is empty, described or bare, and the files that it changes. A merge that
# changes no file still counts, because it settles a conflict.
working_copy='if(empty && parents.len() < 2, "empty", if(description, "described", "bare " ++ diff.files().map(|f| f.path()).join(" ")))'
read_working_copy() { must 'read the source' "${jj[@]}" log --no-graph --revisions @ -T "$working_copy"; }

# Where the user has configured no name for jj, commits carry the user's name on this host.
identity() {
  if [[ -n $identified ]]; then return; fi
  identified=yes
  if [[ -n $("${jj[@]}" config get user.email 2>/dev/null || true) ]]; then return; fi
  jj+=(--config="user.name=${USER:-$(id -un)}" --config="user.email=${USER:-$(id -un)}@$host")
}

commit() {
  local found=$copy
  copy='' nested=() filtered=()
  if [[ -z $found ]]; then found=$(read_working_copy); fi
  if [[ $found != empty ]]; then
    find_nested
    find_filtered
  fi
  if [[ -n $broken ]]; then return; fi
  if [[ ${CHEZMOI_AUTO_COMMIT:-true} == true ]]; then commit_found "$found"; fi
  find_untracked
}
commit_found() { # <what the working copy has>
  case $1 in
    empty) ;;
    described)
      if ((${#filtered[@]})); then finish failed "Cannot commit: git passes ${filtered[0]} through a filter, which jj does not know"; fi
      # the user has described the change, which says that it is complete
      if ((${#nested[@]})); then finish failed "Cannot commit: ${nested[0]} has a repository of its own, in which jj takes the dotfiles for removed: move its .git away"; fi
      step 'commit' new
      ;;
    *) commit_sound "${1#bare }" ;;
  esac
  if [[ $1 != empty ]]; then look; fi
}

# jj does not look into a directory with its own repository: it takes dotfiles that were committed there for removed. So
# the directory stays in the working copy, and is in no commit.
find_nested() {
  local each
  while IFS= read -rd '' each; do
    if [[ $(git --literal-pathspecs ls-tree -r HEAD -- "$each/" 2>/dev/null) != *' blob '* ]]; then continue; fi
    nested+=("$each")
    if target_of "$each"; then keep_uncommitted "$REPLY" 'has a repository of its own in the source, into which jj does not look'; fi
  done < <(find . -mindepth 2 \( -path './.git/*' -o -path './.jj/*' \) -prune -o \( -name .git -o -name .jj \) -printf '%P\0' |
    sed -z 's|/[^/]*$||')
}

# jj takes a file as it is, where git passes it through a filter, such as git-crypt's, before others may see it: a change
# to such a file is not committed.
find_filtered() {
  local at file filter
  if [[ -z $(git config --get-regexp '^filter\..*\.(clean|process)$' || true) ]]; then return; fi
  at=$(must 'read the source' "${jj[@]}" log --no-graph --ignore-working-copy --revisions @ -T commit_id)
  must 'read the source' git diff --name-only -z --no-renames "${head:-$(git hash-object -t tree /dev/null)}" "$at" >"$work/changed"
  git check-attr -z --stdin filter <"$work/changed" >"$work/attributes" 2>"$work/must" ||
    finish failed "Cannot read the source: $(because must)"
  while IFS= read -rd '' file && read -rd '' && IFS= read -rd '' filter; do
    if [[ -z $(git config "filter.$filter.clean" || git config "filter.$filter.process" || true) ]]; then continue; fi
    filtered+=("$file")
    if target_of "$file"; then keep_uncommitted "$REPLY" "git passes it through the filter $filter, which jj does not know"; fi
  done <"$work/attributes"
}

# An edit captured into such a place is only in the source, and is not reported as captured.
keep_uncommitted() { # <target> <reason>
  local i
  keep "$1" "$2"
  for i in "${!captured[@]}"; do
    if [[ ${captured[i]}/ == "$1"/* ]]; then unset "captured[i]"; fi
  done
}

# Leaves in the working copy templates that cannot be read, because they were broken here, and what jj does not look
# into; commits everything else.
commit_sound() { # <files>
  local names=$1 sound='all()' target path
  for path in "${nested[@]}"; do
    quote_path "$path"
    sound+=" ~ root:$REPLY"
  done
  for path in "${filtered[@]}"; do
    quote_path "$path"
    sound+=" ~ root-file:$REPLY"
  done
  for target in "${unreadable[@]}"; do
    [[ ${unreadable_because["/$target"]} == template:* ]] || continue
    path=$(must 'read the source' chezmoi source-path -- "$HOME/$target")
    quote_path "$(realpath --relative-to=. "$path")"
    sound+=" ~ root-file:$REPLY"
  done
  if [[ $sound != 'all()' ]]; then
    names=$(must 'read the source' "${jj[@]}" diff --name-only "$sound" | paste -sd ' ')
    [[ -n $names ]] || return 0
  fi
  # an argument has a limit, and no one reads a thousand names
  if ((${#names} > 2000)); then names="${names:0:2000} ..."; fi
  identity
  step 'commit' commit --message "Dotfiles of $host: $names" "$sound"
}

# A path as jj reads it in a fileset, in REPLY: unlike JSON, it takes control characters as they are.
quote_path() { REPLY=${1//\\/\\\\} REPLY="\"${REPLY//\"/\\\"}\""; }

# A file of the source that jj was told not to track is in no commit, though chezmoi applies it here.
find_untracked() {
  local target
  untracked=() trackable=''
  git -C "$root" ls-files --others -z --exclude=.jj >"$work/others" 2>/dev/null || return 0
  [[ -s $work/others ]] || return 0
  within "$limit" managed chezmoi managed --exclude=none --path-style=all --format=json >"$work/managed" || return 0
  while IFS= read -rd '' target; do
    if [[ $target == */ ]]; then
      target=${target%/}
      keep_uncommitted "$target" 'a repository of its own in the source, which jj does not look into'
      untracked+=("$target (a repository of its own: move its .git away, or make it an external)")
    elif [[ $target == *$'\ufffd'* ]]; then
      # jq's replacement for bytes that are not UTF-8
      keep_uncommitted "$target" 'its name is not UTF-8, so jj does not track it'
      untracked+=("$target (its name is not UTF-8: rename it)")
    else
      keep_uncommitted "$target" 'in the source, but jj does not track it'
      untracked+=("$target") trackable=yes
    fi
  done < <(jq -j --rawfile others "$work/others" '
    ($others | split("\u0000") | map({key: ., value: true}) | from_entries) as $untracked
    | (to_entries[] | .key + (("", "/") as $end | select($untracked[.value.sourceRelative + $end]) | $end)),
      ($untracked | keys[] | select(test("(^|/)[.]chezmoi"))) | . + "\u0000"' "$work/managed")
}

# What git keeps outside its files, and jj does not fetch: a submodule is then no directory, and a file of Git LFS is
# only a pointer. Neither is applied to the home.
find_unfetched() {
  local file
  unfetched=''
  if [[ -e .gitmodules ]]; then
    while IFS= read -rd '' file; do
      keep_unfetched "${file#*$'\t'}" 'a submodule, which is not fetched'
    done < <(git ls-tree -r -z HEAD 2>/dev/null | grep -z '^160000 ' || true)
  fi
  if grep --quiet --no-messages 'filter=lfs' .gitattributes "$root/.gitattributes"; then
    while IFS= read -rd '' file; do
      keep_unfetched "${file#HEAD:}" 'a pointer of Git LFS, whose file is not fetched'
    done < <(git grep -z --files-with-matches -I --all-match -e '^version https://git-lfs\.github\.com/spec/' \
      -e '^oid sha256:[0-9a-f]\{64\}$' HEAD 2>/dev/null || true)
  fi
}
keep_unfetched() { # <file of the repository> <reason>
  target_of "$1" || return 0
  keep "$REPLY" "$2"
  unfetched=yes
}
# The target of a file of the repository, in REPLY. Fails for a file without one, which does not concern the home.
target_of() { # <file of the repository>
  local below
  # chezmoi accepts a path only by its own name for the source, which may be a link
  below=$(realpath --relative-to=. "$root")/
  below=${below#./}
  [[ /$1 != */.* && $1 == "$below"* ]] &&
    REPLY=$(within "$limit" target chezmoi target-path "$root/${1#"$below"}") && REPLY=${REPLY#"$HOME/"}
}

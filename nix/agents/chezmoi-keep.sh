# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # a part of chezmoi-sync, which comes after it
# Finds what an apply would overwrite or remove, and what of that is in no commit of the dotfiles.
#
# - chezmoi is asked; nothing is guessed. A target whose outcome it cannot tell is not applied.
# - It applies with `--less-interactive` and no user to answer: a target that it did not write, or that has
#   changed since it did, stays as it is. It looks right before it writes, so this protects late edits as well.
# - What it did write may still be the host's own: everything below a directory that is removed, and texts that came
#   from the host (`create_`, `modify_`, an `add` that was undone). Such a target is recorded as never
#   written, and stays as well.
# - A `modify_` script exists to change files of the host: the former text is put aside first.

rows=()                          # "<XY of `chezmoi status`> <target>", as `compare` found them
unreadable=()                    # targets about which chezmoi could not say anything
declare -A unreadable_because=() # by "/<target>"
history_read='' history=()       # names of files in commits, once they were read,
externals_of='' externals=()     # and targets of externals, with the commit that they were read for
narrow=''                        # whether an apply has to name its targets,
planned=()                       # and the rows that it then applies
unrefreshed=''                   # why externals could not be refreshed
again=''                         # whether to compare again once a file has made room for its directory
keep_limit=${CHEZMOI_KEEP_LIMIT:-268435456} # limit for everything that is put aside, in bytes

# -- what chezmoi would do

# Leaves chezmoi's answer in `rows` and `unreadable`. Fails where it has none; `because status` says why.
compare() {
  local ask=(chezmoi status --no-tty --keep-going --exclude=none --path-style=absolute) line name known=() code=0
  rows=() unreadable=() unreadable_because=()
  if [[ ! -d $root ]]; then
    echo "$root does not exist, although .chezmoiroot names it as the source" >"$work/status"
    return 1
  fi
  until within "$limit" status "${ask[@]}" >"$work/rows"; do
    if unblock; then continue; fi
    # chezmoi does nothing without its externals; where they cannot be fetched, the ones that it has will do
    if [[ -z $unrefreshed ]] && within "$limit" again "${ask[@]}" --refresh-externals=never >"$work/rows"; then
      unrefreshed=$(because status)
      quietly+=(--refresh-externals=never)
      break
    fi
    if grep -q '^No end within' "$work/status"; then return 1; fi
    # chezmoi prints nothing when one target fails; its log names the others
    within "$limit" account "${ask[@]}" --debug >/dev/null || code=$?
    read_account
    if ((code > 1)) && ! ask_each; then return 1; fi
    ((${#known[@]})) || return 1
    if within "$limit" status "${ask[@]}" --recursive=false -- "${known[@]}" >"$work/rows"; then break; fi
    return 1
  done
  read_rows
}

# chezmoi crashes at a target that does not fit into memory, and says nothing about the targets after it.
ask_each() {
  local target code managed=()
  local -A asked=()
  within "$limit" managed chezmoi managed --exclude=none --path-style=all --format=json >"$work/managed" || return 1
  mapfile -d '' -t managed < <(jq -j 'keys[] + "\u0000"' "$work/managed")
  for target in "${known[@]#"$HOME/"}" "${unreadable[@]}"; do asked["/$target"]=yes; done
  for target in "${managed[@]}"; do
    if [[ -n ${asked["/$target"]-} ]]; then continue; fi
    code=0
    within "$limit" account "${ask[@]}" --recursive=false --debug -- "$HOME/$target" >/dev/null || code=$?
    if ((code > 1)); then
      unreadable+=("$target")
      unreadable_because["/$target"]="chezmoi crashed at it: $(grep -a -m 1 -v '^time=' "$work/account" || true)"
    else
      read_account
    fi
  done
}

# Reads chezmoi's log: targets that it could compare go to `known`, others to `unreadable`.
read_account() {
  local i line failed='' previous='' reason logged='^time=.* msg=statusPreApplyFunc targetRelPath=("([^"\\]|\\.)*"|[^ ]+) target'
  while IFS= read -r line; do
    if [[ $line =~ $logged ]]; then
      name=${BASH_REMATCH[1]}
      # bash decodes what Go has quoted, except for the quotation marks in it
      if [[ $name == \"* ]]; then name=${name:1:-1} && printf -v name '%b' "${name//\\\"/\"}"; fi
      known+=("$HOME/$name")
    elif [[ $line == 'chezmoi: '* ]]; then
      failed=${line#chezmoi: }
    elif [[ -n $failed ]]; then
      # a name that contains a newline
      failed+=$'\n'$line
    else
      previous=${previous:-$line}
    fi
    [[ $failed == *': '* ]] || continue
    name=${failed%%: *}
    if [[ $name != warning ]]; then
      # chezmoi names a directory with `remove_` like this where a file is in its place
      if [[ $name == *stat\ "$HOME"/* || $name == "$HOME"/* ]]; then name=${name#*"$HOME/"}; fi
      reason=${failed#"${failed%%: *}: "}
      # the output of a program that chezmoi started comes before
      if [[ $reason == 'exit status '* && -n $previous ]]; then reason=$previous; fi
      unreadable+=("$name")
      unreadable_because["/$name"]=$reason
    fi
    failed='' previous=''
  done < <(sed -E '/^time=/{/ msg=statusPreApplyFunc /!d}' "$work/account")
  for i in "${!known[@]}"; do
    if [[ -n ${unreadable_because["/${known[i]#"$HOME/"}"]-} ]]; then unset "known[i]"; fi
  done
}

# chezmoi does nothing at all where `.chezmoiremove` names a path below something that is a file here. Such a file is
# put aside, unless it is a target itself.
unblock() {
  local said source target
  said=$(<"$work/status")
  if [[ ! $said =~ ^chezmoi:\ [a-z]+\ "$HOME/"(.*):\ not\ a\ directory$ || $said == *$'\nchezmoi: '* ]]; then return 1; fi
  target=${BASH_REMATCH[1]}
  while [[ $target == */* ]] && ! exists "$HOME/$target"; do target=${target%/*}; done
  if ! exists "$HOME/$target" || [[ -d $HOME/$target ]]; then return 1; fi
  shopt -s globstar nullglob
  for source in "$root"/**/*; do
    if [[ -f $source ]] && bare_name "$source" && [[ $REPLY == "${target##*/}" ]]; then
      shopt -u globstar nullglob
      return 1
    fi
  done
  shopt -u globstar nullglob
  move_aside "$target"
}

# A name may contain newlines, but a row begins with two letters and the home.
read_rows() {
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    if [[ $line == [\ ADMR][\ ADMR]' '"$HOME/"* ]]; then
      rows+=("${line:0:3}${line:${#HOME}+4}")
    elif ((${#rows[@]})); then
      rows[-1]+=$'\n'$line
    else
      echo "chezmoi's targets are not in $HOME" >"$work/status"
      return 1
    fi
  done <"$work/rows"
}

exists() { [[ -e $1 || -L $1 ]]; }
is_directory() { [[ -d $1 && ! -L $1 ]]; }

# -- before an apply

# Ensures that the apply of `rows` removes nothing that is in no commit, and names the targets that stay for that.
shield() {
  local row target i here=() marks=() types=() # existing targets, their letters, what chezmoi last wrote there
  local scripts=()                            # scripts that will run
  local below=() kinds=() of=()              # content of directories to be removed, its kinds, and which directory
  local -A sum_of=()                          # checksums of files there, from when they were found in commits
  local -A is_modified=() stays_directory=() own=() uncommitted=()
  narrow='' planned=() again=''
  for row in "${rows[@]}"; do
    if [[ $row == ?R* ]]; then scripts+=("${row:3}"); fi
    if [[ $row == ?[MD]* ]] && exists "$HOME/${row:3}"; then here+=("${row:3}") marks+=("${row:0:2}"); fi
  done
  if ((${#here[@]} + ${#scripts[@]})); then must "read chezmoi's state" chezmoi state dump --format=json >"$work/state"; fi
  if ((${#scripts[@]})); then free_scripts; fi
  if ((${#here[@]})); then
    mapfile -t types < <(last_written '.type // "none"' "${here[@]}")
    ((${#types[@]} == ${#here[@]})) || finish failed "Cannot read chezmoi's state"
    find_kinds
    find_own
    for i in "${!here[@]}"; do shield_one "${here[i]}" "${marks[i]}" "${types[i]}"; done
    keep_closed
  fi
  for row in "${rows[@]}"; do
    if [[ $row == ' '[AM]* && $HOME/${row:3} == "${XDG_CONFIG_HOME:-$HOME/.config}"/chezmoi/chezmoi.* ]]; then try_configuration "${row:3}"; fi
  done
  plan
}

# To chezmoi a file is either private or for everyone: where only its group may read it, as with mode 640, an apply
# would open it to everyone.
keep_closed() {
  local i differ=() closed=()
  for i in "${!here[@]}"; do
    if [[ ${marks[i]} == ' M' && -z ${why["/${here[i]}"]-} ]]; then differ+=("$HOME/${here[i]}"); fi
  done
  ((${#differ[@]})) || return 0
  # shellcheck disable=SC2185 # the paths are read
  mapfile -d '' -t closed < <(printf '%s\0' "${differ[@]}" |
    find -files0-from - -maxdepth 0 ! -type l -perm /070 ! -perm /007 -print0 2>/dev/null)
  ((${#closed[@]})) || return 0
  within "$limit" dump chezmoi dump --format=json --recursive=false -- "${closed[@]}" >"$work/kinds" || return 0
  mapfile -d '' -t differ < <(jq -j 'to_entries[] | select((.value.perm // 0) % 8 > 0) | .key + "\u0000"' "$work/kinds")
  for i in "${!differ[@]}"; do
    keep "${differ[i]}" "only its group may read it here, and an apply would let everyone: \`chmod\` it to 600 or 644 (700 or 755), or set \`umask\` in chezmoi's configuration"
    narrow=yes
  done
}

# With a configuration that it cannot read chezmoi does nothing, so no host could ever receive the repair.
try_configuration() { # <target>
  local said at=$work/configuration name=${1##*/}
  if [[ -n ${why["/$1"]-} ]]; then return; fi
  within "$limit" must chezmoi dump --format=json --recursive=false -- "$HOME/$1" >"$work/kinds" || return 0
  if ! jq --exit-status '.[] | .type == "file"' "$work/kinds" >/dev/null; then return; fi
  mkdir -p "$at/chezmoi"
  jq -j '.[].contents' "$work/kinds" >"$at/chezmoi/$name"
  if ! XDG_CONFIG_HOME=$at within "$limit" must chezmoi source-path >/dev/null; then
    said=$(because must)
    said=${said#chezmoi: }
    said="chezmoi could not read it: ${said//"$at/chezmoi/$name"/$name}"
    keep "$1" "cannot be applied: $said"
    unapplied+=("$1: $said")
    narrow=yes
  fi
  rm -r "$at"
}

# chezmoi takes a script that it ran before for a file that a user has removed since, and asks whether to go on: the
# script would never run again.
free_scripts() {
  local i ran=()
  mapfile -t ran < <(last_written '.type // "none"' "${scripts[@]}")
  for i in "${!scripts[@]}"; do
    if [[ ${ran[i]-} == script ]]; then record "${scripts[i]}" '{"type":"remove"}'; fi
  done
}

# Prints what chezmoi last wrote, a line for each target.
last_written() { # <what, for jq> <target...>
  printf '%s\0' "${@:2}" >"$work/names"
  jq -r --arg home "$HOME/" --rawfile names "$work/names" \
    '.entryState as $all | $names | rtrimstr("\u0000") | split("\u0000")[] | $all[$home + .] // {} | '"$1" "$work/state"
}

# Finds which directories stay directories, and which files a `modify_` script changes.
find_kinds() {
  local i target source directories=() names='' answers=()
  for i in "${!here[@]}"; do
    target=$HOME/${here[i]}
    [[ ${marks[i]} == ?M ]] || continue
    if is_directory "$target"; then directories+=("$target"); elif [[ -f $target && ! -L $target ]]; then names+="/${target##*/}/"; fi
  done
  if ((${#directories[@]})) && within "$limit" dump chezmoi dump --format=json --recursive=false -- \
    "${directories[@]}" >"$work/kinds"; then
    mapfile -d '' -t answers < <(jq -j 'to_entries[] | select(.value.type == "dir") | .key + "\u0000"' "$work/kinds")
    for target in "${answers[@]}"; do stays_directory["/$target"]=yes; done
  fi
  [[ -n $names ]] || return 0
  shopt -s globstar nullglob
  answers=("$root"/**/modify_*)
  shopt -u globstar nullglob
  for source in "${answers[@]}"; do
    bare_name "$source"
    [[ $names == *"/$REPLY/"* ]] || continue
    target=$(within "$limit" modify chezmoi target-path "$source" && echo .) || continue
    target=${target%$'\n.'}
    is_modified["/${target#"$HOME/"}"]=yes
  done
}

# Leaves in `own` what is in no commit, by target; for a directory that will be removed, the names below it.
find_own() {
  local i target file kind singles=() singles_of=()
  for i in "${!here[@]}"; do
    target=${here[i]} file=$HOME/${here[i]}
    if [[ -f $file && ! -L $file ]]; then
      if [[ ${types[i]} == file || -n ${is_modified["/$target"]-} ]]; then singles+=("$file") singles_of+=("$target"); fi
    elif is_directory "$file" && [[ ${types[i]} != none && -z ${stays_directory["/$target"]-} ]]; then
      if ! find "$file" -mindepth 1 -printf '%y\0%p\0' >"$work/below" 2>/dev/null; then
        own["/$target"]+=' unreadable content,'
        continue
      fi
      while IFS= read -rd '' kind && IFS= read -rd '' file; do
        kinds+=("$kind") below+=("$file") of+=("$target")
      done <"$work/below"
    fi
  done
  find_uncommitted "${singles[@]}"
  for i in "${!singles[@]}"; do
    target=${singles_of[i]} file=${singles[i]}
    if [[ -z ${uncommitted["/$file"]-} ]]; then continue; fi
    if [[ -n ${is_modified["/$target"]-} ]] || ! rendered "$target"; then own["/$target"]=yes; fi
  done
  if ((${#below[@]})); then find_own_below; fi
}

# chezmoi removes a directory without a look at its content: finds what it did not write there, or what changed since.
find_own_below() {
  local i wrote=() files=() sums=() sum
  mapfile -t wrote < <(last_written '"\(.type // "") \(.contentsSHA256 // "")"' "${below[@]#"$HOME/"}")
  for i in "${!below[@]}"; do
    if [[ ${kinds[i]} == f ]]; then files+=("${below[i]}"); fi
  done
  if ((${#files[@]})); then
    mapfile -d '' -t sums < <(printf '%s\0' "${files[@]}" | xargs -0 sha256sum -z -- 2>/dev/null)
    for sum in "${sums[@]}"; do sum_of["/${sum:66}"]=${sum:0:64}; done
    find_uncommitted "${files[@]}"
  fi
  for i in "${!below[@]}"; do
    case ${kinds[i]} in
      d) if [[ ${wrote[i]-} == 'dir '* ]]; then continue; fi ;;
      f)
        sum=${sum_of["/${below[i]}"]-}
        if [[ -n $sum && ${wrote[i]-} == "file $sum" ]] &&
          { [[ -z ${uncommitted["/${below[i]}"]-} ]] || rendered "${below[i]}"; }; then continue; fi
        ;;
      l)
        sum=$(readlink -n -- "${below[i]}" | sha256sum)
        if [[ ${wrote[i]-} == "symlink ${sum%% *}" ]]; then continue; fi
        ;;
    esac
    own["/${of[i]}"]+=" ${below[i]#"$HOME/${of[i]}/"},"
  done
}

# Leaves in `uncommitted` which of these files have a text that is in no commit.
find_uncommitted() { # <file...>
  local ids=() answers=() file i=0 blobs=() id
  local -A committed=()
  (($#)) || return 0
  mapfile -t ids < <(printf '%s\0' "$@" | xargs -0 git hash-object --no-filters -- 2>/dev/null)
  if ((${#ids[@]} == $#)); then
    mapfile -t answers < <(printf '%s\n' "${ids[@]}" | git cat-file --batch-check='%(objecttype)')
  fi
  for i in "${!answers[@]}"; do
    if [[ ${answers[i]} == blob ]]; then blobs+=("${ids[i]}"); fi
  done
  if ((${#blobs[@]})); then
    printf '%s\n' "${blobs[@]}" | sort --unique >"$work/asked"
    in_commits
    while read -r id; do committed[$id]=yes; done <"$work/committed"
  fi
  i=0
  for file; do
    if [[ -z ${ids[i]-} || -z ${committed["${ids[i]}"]-} ]]; then uncommitted["/$file"]=yes; fi
    i=$((i + 1))
  done
}

# Leaves in $work/committed which of the blobs in $work/asked a commit or a ref has: git keeps a blob for a while
# that was only added to the index.
in_commits() {
  if [[ -e $work/reachable ]] && found_all; then return; fi
  # commits may have been made since
  if ! git rev-list --all --reflog --objects --no-object-names >"$work/reachable" 2>/dev/null; then
    # with an object missing somewhere, a commit cannot be told from what is no longer one
    rm "$work/reachable"
    cp "$work/asked" "$work/committed"
    return
  fi
  found_all || true
}
found_all() {
  grep --fixed-strings --line-regexp --file="$work/asked" "$work/reachable" | sort --unique >"$work/committed" || true
  cmp --silent "$work/asked" "$work/committed"
}

# Whether a file that chezmoi wrote may be generated from a commit, which then does not have its text. What
# `create_` and `modify_` generate has text of the host in it.
rendered() { # <file>
  local path made='' target=${1#"$HOME/"}
  if [[ -z $history_read ]]; then
    history_read=yes
    mapfile -d '' -t history < <(git log --all --format= --name-only -z -- '*create_*' '*modify_*' '*.tmpl' \
      '*encrypted_*' 2>/dev/null)
  fi
  for path in "${history[@]}"; do
    bare_name "$path"
    [[ $REPLY == "${1##*/}" ]] || continue
    if [[ ${path##*/} == create_* || ${path##*/} == modify_* ]]; then return 1; fi
    # a file in another directory may have that name, too
    bare_path "$path"
    if [[ /$REPLY == */"$target" ]]; then made=yes; fi
  done
  [[ -n $made ]] || is_external "$target"
}
is_external() { # <target>
  local each
  if [[ $externals_of != "/$head" ]]; then
    externals_of=/$head externals=()
    if [[ -n $(find "$root" -name '.chezmoiexternal*' -print -quit) ]] &&
      within "$limit" externals chezmoi managed --include=externals --path-style=all --format=json >"$work/externals"; then
      mapfile -d '' -t externals < <(jq -j 'keys? // [] | .[] + "\u0000"' "$work/externals")
    fi
  fi
  for each in "${externals[@]}"; do
    if [[ $1/ == "$each"/* ]]; then return; fi
  done
  return 1
}

# The name of the target of a source file, in REPLY.
bare_name() { # <source file>
  REPLY=${1##*/}
  # the suffix is configurable
  if [[ $REPLY =~ ^((create|modify)_)?encrypted_ ]]; then REPLY=${REPLY%.*}; fi
  while [[ $REPLY =~ ^(run|once|onchange|before|after|create|modify|encrypted|private|readonly|empty|executable|symlink|remove)_(.*)$ ]]; do
    REPLY=${BASH_REMATCH[2]}
  done
  REPLY=${REPLY/#dot_/.}
  REPLY=${REPLY#literal_}
  while [[ $REPLY =~ ^(.*)\.(literal|tmpl)$ ]]; do REPLY=${BASH_REMATCH[1]}; done
}

# The same for its path, below what may be chezmoi's root, in REPLY.
bare_path() { # <source file>
  local left=$1 name path=''
  bare_name "$1"
  name=$REPLY
  while [[ $left == */* ]]; do
    REPLY=${left%%/*} left=${left#*/}
    while [[ $REPLY =~ ^(remove|external|exact|private|readonly)_(.*)$ ]]; do REPLY=${BASH_REMATCH[2]}; done
    REPLY=${REPLY/#dot_/.}
    path+=${REPLY#literal_}/
  done
  REPLY=$path$name
}

# Records a target that stays as it is, and makes chezmoi leave it alone.
shield_one() { # <target> <letters of its row> <what chezmoi last wrote there>
  local target=$1 file=$HOME/$1 owned=${own["/$1"]-}
  if [[ -n ${stays_directory["/$target"]-} ]]; then
    # only its permissions change
    if [[ $3 != dir ]]; then record "$target" "{\"type\":\"dir\",\"mode\":$((0x80000000 + 8#$(stat -c %a "$file" || echo 0)))}"; fi
  elif [[ -n ${is_modified["/$target"]-} ]]; then
    put_aside "$target" "$2" "$3"
  elif is_directory "$file"; then
    if [[ $3 != none && -n $owned ]]; then
      keep "$target" "a directory of this host, with content in no commit:${owned%,}"
    elif [[ $3 == dir ]]; then
      remove_directory "$target"
    else
      # even an empty one may be the user's
      keep "$target" 'a directory of this host'
    fi
    if [[ $3 != remove ]]; then record "$target" '{"type":"remove"}'; fi
  elif [[ $3 == none && $2 == ?D ]]; then
    keep "$target" 'in no commit, and the source would remove it'
  elif [[ $3 == none ]]; then
    keep "$target" 'was here before the dotfiles'
  elif [[ -n $owned && $2 == ' '* ]]; then
    keep "$target" 'its text is in no commit'
    record "$target" '{"type":"remove"}'
  fi
}

record() { # <target> <state, as JSON>
  must "keep $1" chezmoi state set --bucket=entryState --key="$HOME/$1" --value="$2"
}

# Removes a directory, except for what came into it since all of its content was found in commits.
remove_directory() { # <target>
  local i each sum files=() directories=("$HOME/$1")
  local -A edited=()
  for i in "${!below[@]}"; do
    if [[ ${of[i]} != "$1" ]]; then continue; fi
    # a directory is listed before its content, and has to be removed after it
    if [[ ${kinds[i]} == d ]]; then directories=("${below[i]}" "${directories[@]}"); else files+=("${below[i]}"); fi
  done
  # a file that was edited since stays
  while IFS= read -rd '' sum; do
    if [[ ${sum%% *} != "${sum_of["/${sum:66}"]-}" ]]; then edited["/${sum:66}"]=yes; fi
  done < <(for each in "${files[@]}"; do [[ -L $each ]] || printf '%s\0' "$each"; done | xargs -0 --no-run-if-empty sha256sum --zero -- 2>/dev/null)
  for i in "${!files[@]}"; do
    if [[ -n ${edited["/${files[i]}"]-} ]]; then unset "files[i]"; fi
  done
  ((!${#files[@]})) || printf '%s\0' "${files[@]}" | xargs -0 rm -f -- 2>/dev/null || true
  printf '%s\0' "${directories[@]}" | xargs -0 rmdir -- 2>/dev/null || true
  if exists "$HOME/$1"; then keep "$1" 'a directory of this host'; fi
}

# Copies a file that a script is about to change, so that chezmoi may overwrite exactly this text.
put_aside() { # <target> <letters of its row> <what chezmoi last wrote there>
  local file=$HOME/$1 copy='' each sum
  if [[ -n ${own["/$1"]-} ]]; then
    for each in "$state/kept/"*/"$1"; do
      if [[ -f $each ]] && cmp -s "$each" "$file"; then copy=$each; fi
    done
    if [[ -z $copy ]]; then
      if ! has_room "$1" || ! copy_aside "$1"; then
        record "$1" '{"type":"remove"}'
        return
      fi
      copy=$REPLY
    fi
    keep "$1" "changed by the source; what was there is put aside (see chezmoi-restore-kept)" "$copy"
  fi
  if [[ $2 == ' '* && $3 == file ]]; then return; fi
  sum=$(sha256sum <"${copy:-$file}")
  record "$1" "{\"type\":\"file\",\"mode\":$((8#$(stat -c %a "$file" || echo 0))),\"contentsSHA256\":\"${sum%% *}\"}"
}

# Whether a file may be put aside; reports it if not. Its size counts in full, because a copy may lose its holes.
has_room() { # <target>
  local size held
  mkdir -p "$state/kept"
  chmod 700 "$state/kept"
  size=$(stat -c %s "$HOME/$1")
  held=$(du --summarize --block-size=1 "$state/kept")
  if ((${held%%[!0-9]*} + size <= keep_limit)); then return; fi
  keep "$1" "cannot be put aside: $state/kept may hold only $keep_limit bytes"
  return 1
}
copy_aside() { # <target>; the path of the copy is in REPLY
  local place='' copy part=$state/kept/.part
  if new_place "$state/kept" && place=$REPLY copy=$REPLY/$1 && mkdir -p "${copy%/*}" &&
    cp -dp "$HOME/$1" "$part" && sync "$part" && mv -T "$part" "$copy" && sync --file-system "$state/kept"; then
    REPLY=$copy
    return
  fi 2>"$work/aside"
  rm -f "$part"
  [[ -z $place ]] || find "$place" -depth -type d -empty -delete
  keep "$1" "cannot be put aside: $(tail -n 1 "$work/aside")"
  return 1
}

# Moves a file out of the way, and makes chezmoi believe that there never was one.
move_aside() { # <target>
  local copy
  local -A uncommitted=()
  has_room "$1" || return 1
  if [[ -f $HOME/$1 && ! -L $HOME/$1 ]]; then
    copy_aside "$1" || return 1
    copy=$REPLY
    # the copy is on the disk now; the file stays if it was written since
    cmp -s "$HOME/$1" "$copy" && rm -f "$HOME/$1" || return 1
  else
    new_place "$state/kept" && copy=$REPLY/$1 && mkdir -p "${copy%/*}" && mv -T "$HOME/$1" "$copy" || return 1
  fi
  record "$1" '{"type":"remove"}'
  if [[ -f $copy && ! -L $copy ]]; then
    find_uncommitted "$copy"
    if [[ -z ${uncommitted["/$copy"]-} ]]; then rm -f "$copy" && return; fi
  fi
  keep "$1" "in the place of a directory; it is put aside (see chezmoi-restore-kept)" "$copy"
}

# Leaves in `planned` the rows to apply where these are not all: no target that could not be read, nothing
# through a file in the place of a directory, and nothing below a directory that was deleted here. In `unreadable` it
# leaves the targets that have a fault themselves.
plan() {
  local row target stand_ins=() gone=() left=()
  for target in "${here[@]}"; do
    if [[ -n ${why["/$target"]-} ]] && ! is_directory "$HOME/$target"; then stand_ins+=("$target"); fi
  done
  if ((${#unreadable[@]})) || [[ -n $unfetched ]]; then narrow=yes; fi
  for row in "${rows[@]}"; do
    if [[ $row == D* ]] && ! is_below "${row:3}" "${gone[@]}"; then gone+=("${row:3}"); fi
  done
  for row in "${rows[@]}"; do
    target=${row:3}
    # chezmoi removes a link to a directory with `remove_` without asking
    if is_below "$target" "${stand_ins[@]}" || [[ -L $HOME/$target && -n ${why["/$target"]-} ]]; then
      narrow=yes
    elif [[ $row == ' '[AM]* ]] && is_below "$target" "${gone[@]}"; then
      narrow=yes
    elif [[ -z ${why["/$target"]-} || -n ${copies["/$target"]-} ]] && { [[ $row != ?D* ]] || exists "$HOME/$target"; }; then
      planned+=("$row")
    fi
  done
  for row in "${rows[@]}"; do
    if exists "$HOME/${row:3}" && [[ ! -d $HOME/${row:3} ]]; then stand_ins+=("${row:3}"); fi
  done
  for target in "${unreadable[@]}"; do
    if [[ ${unreadable_because["/$target"]} == *'unsupported file type'* ]]; then
      keep "$target" 'neither a file nor a directory nor a link'
    elif [[ ${unreadable_because["/$target"]} == *'is a directory' ]] && is_directory "$HOME/$target"; then
      keep "$target" 'a directory of this host'
    fi
    if [[ -n ${why["/$target"]-} ]]; then continue; fi
    if ! is_below "$target" "${stand_ins[@]}"; then left+=("$target"); elif [[ -z ${why["/$REPLY"]-} ]]; then again=yes; fi
  done
  unreadable=("${left[@]}")
}
is_below() { # <target> <targets above...>: which of them it is below, in REPLY
  local each
  for each in "${@:2}"; do
    if [[ $1 == "$each"/* ]]; then REPLY=$each && return; fi
  done
  return 1
}

# Applies `rows`. chezmoi loses the order of scripts where targets are named, so this function keeps it.
apply_rows() {
  local row before='' after='' first=() second=() third=() source code=0
  : >"$work/output"
  : >"$work/applied"
  if [[ -z $narrow ]]; then
    apply_some || code=1
  else
    shopt -s globstar nullglob
    for source in "$root"/{,.chezmoiscripts/}**/run_*; do
      bare_name "$source"
      case ${source##*/} in
        run_before_* | run_once_before_* | run_onchange_before_*) before+="/$REPLY/" ;;
        run_after_* | run_once_after_* | run_onchange_after_*) after+="/$REPLY/" ;;
      esac
    done
    shopt -u globstar nullglob
    for row in "${planned[@]}"; do
      bare_name "${row:3}"
      if [[ $row == ?R* && $before == *"/$REPLY/"* ]]; then
        first+=("$HOME/${row:3}")
      elif [[ $row == ?R* && $after == *"/$REPLY/"* ]]; then
        third+=("$HOME/${row:3}")
      else
        second+=("$HOME/${row:3}")
      fi
    done
    ((!${#first[@]})) || apply_some --recursive=false -- "${first[@]}" || code=1
    ((!${#second[@]})) || apply_some --recursive=false -- "${second[@]}" || code=1
    ((!${#third[@]})) || apply_some --recursive=false -- "${third[@]}" || code=1
  fi
  # leave out chezmoi's questions whether to overwrite an edit: without an answer, the edit is kept
  sed -E 's/.* (has changed since chezmoi last wrote it|already exists) \([^)]*\)\? ?//g' "$work/output"
  return "$code"
}
apply_some() { # <options and targets...>
  local code=0
  within "$apply_limit" apply chezmoi apply --no-tty --keep-going --less-interactive "$@" >>"$work/output" || code=$?
  cat "$work/apply" >>"$work/applied"
  return "$code"
}

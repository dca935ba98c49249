# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # its parts, as chezmoi-keep.sh, come first
# Dotfiles of this user in step with other hosts: captures edits, made in $HOME or in chezmoi's source
# (a colocated jj repository), commits them, rebases them onto the trunk, pushes and applies.
#
# Three rules stand above the rest:
# - What is here and in no commit is never written over or removed (chezmoi-keep.sh). chezmoi itself compares
#   each target with what it last wrote, right before it writes, and leaves a changed one alone when nobody
#   answers its question.
# - A conflict is neither pushed nor applied, nor left in the source: a rebase is tried first without
#   touching it, so the source keeps this host's text and `chezmoi apply` by hand does no harm.
# - A conflict is seen on both hosts. Only the host that pushed second meets it, so it publishes its side
#   as the bookmark `conflict/<host>`, which every other host reads as it fetches; `conflict/<host>.home` is
#   what was edited at home, where a commit conflicts, too. One that this clone did not publish is of an
#   earlier clone of this host, and nowhere else: it stays until it is in the trunk, if need be as
#   `conflict/<host>.former-<commit>`.
#
# Settings come as CHEZMOI_* from the wrapper. Prints its phases and writes status.json.
#
# A start of a program or a fork takes long on an emulated CPU. So git and jj are asked several things at
# once, what they said is kept as long as it holds, and small answers come in REPLY.

branch=${CHEZMOI_BRANCH:-main}
host=${CHEZMOI_HOST:-$(uname -n)}
network_limit=${CHEZMOI_NETWORK_LIMIT:-60} # seconds for a fetch or a push
apply_limit=${CHEZMOI_APPLY_LIMIT:-900}    # seconds; the user's own scripts run in it
tries=12                                   # pushes that others may win before this host gives up

trunk=refs/remotes/origin/$branch # as git names it
trunk_rev="\"$branch\"@origin"    # as jj names it
mine=conflict/$host
git_dir=.git
published_list=.git/chezmoi-sync-published # commits that this clone gave that name, as it goes with the clone
# a commit is not dropped because its remote bookmark is gone, and no file is too large to be kept
jj=(jj --no-pager --color=never --config=ui.log-word-wrap=false --config=git.abandon-unreachable-commits=false
  --config=snapshot.max-new-file-size=0)

TZ=UTC printf -v started '%(%FT%TZ)T' -1
phase=lock from='' to='' repository='' root='' remote=''
head='' published=()                        # as `look` found them, and `refs`
declare -A refs=()
copy=''                                     # the working copy as `refuse_unresolved` found it, until it is changed
captured=() applied=() conflicts=()         # objects of JSON in `conflicts`
kept=()                                     # targets that stay as they are,
declare -A why=() copies=()                 # for what reason, and where a former text is, by "/<target>"
uncaptured=() unapplied=() untracked=()     # what is wrong with one target, and holds nothing else back
filtered=()                                 # changed files that git would pass through a filter
nested=()                                   # directories of dotfiles with a repository of their own
unfetched=''                                # whether git has what jj does not fetch
own_files=()                                # of `conflicts`, this host's
home_sides=()                               # source file, base commit and target of each edit that conflicts
ended='' work=''
remote_commit='' # where a step of jj is to lead
pushed='' broken='' edited_meanwhile='' applied_from='' identified='' # what failed is in `broken`, and holds nothing else back

main() {
  cd || exit
  HOME=$PWD # as chezmoi writes it in its state
  take_lock
  # a unit of the system is not told where a session of its user has its sockets, as that of gpg-agent
  if [[ -z ${XDG_RUNTIME_DIR-} && -O /run/user/$UID ]]; then export XDG_RUNTIME_DIR=/run/user/$UID; fi
  # COLUMNS: without a terminal, jj starts a program twice to ask for its width
  export GIT_TERMINAL_PROMPT=0 LC_ALL=C.UTF-8 COLUMNS=80
  export "${durable[@]}"
  enter clone
  open_repository
  refuse_unresolved
  # what is edited while a round runs is left alone by it and taken in by the next
  for _ in 1 2 3; do
    forget_kept
    conflicts=() own_files=() home_sides=() unapplied=()
    enter capture
    capture
    applied_from=$head
    enter commit
    commit
    enter fetch
    fetch || end_offline fetch
    integrate_and_push
    enter publish
    publish
    enter apply
    apply
    if [[ -z $edited_meanwhile ]]; then break; fi
  done
  phase='done'
  summary
}

# -- what is reported

quote() { # <text>: as a string of JSON, in REPLY
  local text=$1 code
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  while [[ $text =~ [[:cntrl:]] ]]; do
    printf -v code '\\u%04x' "'${BASH_REMATCH[0]}"
    text=${text//"${BASH_REMATCH[0]}"/"$code"}
  done
  readable "$text"
  REPLY="\"$REPLY\""
}
quote_known() { # <text>: the same, and null where it is empty
  if [[ -n $1 ]]; then quote "$1"; else REPLY=null; fi
}
array() { # <texts...>: as a list of JSON, in REPLY
  local each all=''
  for each; do
    quote "$each"
    all+=${all:+,}$REPLY
  done
  REPLY="[$all]"
}

write_status() { # <outcome> <reason>
  local finished fields='' name IFS=,
  TZ=UTC printf -v finished '%(%FT%TZ)T' -1
  local -A texts=([phase]=$phase [outcome]=$1 [reason]=$2 [host]=$host [source]=$repository [branch]=$branch
    [from]=$from [to]=$to [started]=$started [finished]=$finished)
  for name in phase outcome reason host source branch from to started finished; do
    quote_known "${texts[$name]}"
    fields+="\"$name\":$REPLY,"
  done
  array "${captured[@]}"
  fields+="\"captured\":$REPLY,"
  array "${applied[@]}"
  fields+="\"applied\":$REPLY,"
  list_kept
  printf -v fields '{%s"kept":[%s],"conflicts":[%s]}' "$fields" "$REPLY" "${conflicts[*]}"
  put_status "$fields"
}

# Without room for a new file, the old one is written over: that needs none. A status that is not true is
# worse than none, so one that cannot be replaced goes.
put_status() { # <text>
  local file=$state/status.json size
  # a rename that replaces a file brings its data to the disk, and one that replaces none does not
  if printf '%s\n' "$1" >"$file.new" && { [[ -e $file ]] || sync "$file.new"; } && mv -T "$file.new" "$file"; then return; fi
  rm -f "$file.new"
  size=$(stat -c %s "$file" || true)
  if printf "%-${size:-0}s\n" "$1" 1<>"$file" && [[ $(<"$file") == "$1"* ]]; then return; fi
  echo "<3>chezmoi-sync: cannot write $file, and removes it" >&2
  rm -f "$file"
  return 1
}

enter() { # <phase>
  phase=$1
  echo "chezmoi-sync: phase: $phase"
  # what is known otherwise comes at the end
  printf -v REPLY '{"phase":"%s","outcome":null,"reason":null,"host":"%s","started":"%s","finished":null}' \
    "$phase" "$host" "$started"
  put_status "$REPLY" || true
  if [[ -n ${CHEZMOI_PHASE_HOOK:-} ]]; then $CHEZMOI_PHASE_HOOK "$phase" 9>&- || true; fi
}

finish() { # <outcome> <reason>
  local code=1
  case $1 in
    synced | up-to-date | offline | skipped) code=0 ;;
  esac
  ended=yes
  write_status "$1" "$2" || code=1
  echo "chezmoi-sync: $1${2:+: $2}" >&2
  # in a subshell, as of `$(must …)`, all has to end, too
  if ((BASH_SUBSHELL)); then kill -s USR1 $$; fi
  exit "$code"
}

# What nothing above foresees, as a full /tmp: the last run's outcome must not pass for this one's.
# shellcheck disable=SC2317,SC2329 # a trap calls it
end() {
  trap - EXIT
  rm -rf "$work"
  if [[ -z $ended ]]; then
    write_status failed "Ended unexpectedly in phase $phase, at \`${BASH_COMMAND%%$'\n'*}\`" || true
  fi
}

keep() { # <target> <reason> [<copy>]
  if [[ -z ${why["/$1"]-} ]]; then kept+=("$1"); fi
  why["/$1"]=$2
  if [[ -n ${3-} ]]; then copies["/$1"]=$3; fi
}
# Begins anew, but for what was put aside.
forget_kept() {
  local target
  local -A reasons=()
  for target in "${!copies[@]}"; do reasons["$target"]=${why["$target"]}; done
  kept=() why=()
  for target in "${!reasons[@]}"; do keep "${target#/}" "${reasons["$target"]}"; done
}
list_kept() { # as objects of JSON, in REPLY
  local target all='' each
  for target in "${kept[@]}"; do
    quote "$target"
    each="{\"file\":$REPLY"
    quote "${why["/$target"]}"
    each+=",\"reason\":$REPLY"
    if [[ -n ${copies["/$target"]-} ]]; then
      quote "${copies["/$target"]}"
      each+=",\"copy\":$REPLY"
    fi
    all+="${all:+,}$each}"
  done
  REPLY=$all
}
add_conflict() { # <file...>: one that this host has to settle
  own_files+=("$@")
  note_conflict "$host" "$@"
}
note_conflict() { # <host> <file...>
  local whose each
  quote "$1"
  whose=$REPLY
  array "${@:2}"
  # looked for once more
  for each in "${conflicts[@]}"; do
    if [[ $each == "{\"host\":$whose,\"files\":$REPLY}" ]]; then return; fi
  done
  conflicts+=("{\"host\":$whose,\"files\":$REPLY}")
}

summary() {
  local files names
  if ((${#own_files[@]})); then
    mapfile -d '' -t files < <(printf '%s\0' "${own_files[@]}" | sort -zu)
    printf -v names '%s, ' "${files[@]}"
    finish conflict "Edited here and elsewhere: ${names%, } (see chezmoi-show-conflicts)"
  fi
  if [[ -n $broken ]]; then finish failed "$broken"; fi
  if [[ -n $unrefreshed ]]; then
    judge_remote "$unrefreshed"
    if [[ $verdict == failed ]]; then unapplied+=("an external, which stays as it was: $unrefreshed"); fi
  fi
  if ((${#uncaptured[@]})); then
    printf -v names '%s; ' "${uncaptured[@]}"
    finish failed "Cannot capture ${names%; }"
  fi
  if ((${#unapplied[@]})); then
    printf -v names '%s; ' "${unapplied[@]}"
    finish failed "Cannot apply ${names%; }"
  fi
  if ((${#nested[@]})); then
    printf -v names '%s, ' "${nested[@]}"
    finish failed "jj takes the dotfiles in ${names%, } for removed, as there is a repository of its own: they stay as they are, here and elsewhere, until its .git is moved away from $repository"
  fi
  if ((${#filtered[@]})); then
    printf -v names '%s, ' "${filtered[@]}"
    finish failed "git passes ${names%, } through a filter, which jj does not know: it is not committed, as it would be as it is here"
  fi
  if ((${#untracked[@]})); then
    printf -v names '%s, ' "${untracked[@]}"
    finish failed "jj does not track ${names%, }, so it stays on this host (\`jj file track\` in $root)"
  fi
  if [[ -n $pushed || $from != "$to" || ${#captured[@]} -gt 0 || ${#applied[@]} -gt 0 ]]; then
    finish synced ''
  fi
  finish up-to-date ''
}

end_offline() { # <step that the network ended, or the remote refused>
  local said
  said=$(because "$1")
  list_conflicts
  if ((!${#own_files[@]})); then
    # against what was fetched last
    refuse_markers
    enter apply
    apply
    # what waits for a person does so without a network, too
    if [[ -n $broken ]] || ((${#uncaptured[@]} + ${#unapplied[@]})); then summary; fi
  fi
  unreached "$1" "Cannot $1: $said" "$said"
}
# Ends for a remote that gave nothing: as offline where that may pass by itself, as it may for a directory on
# a disk that is not mounted now.
unreached() { # <step> <reason> [<reason when offline>]
  local url=${remote:-${CHEZMOI_REPO_URL:-}} more=''
  judge_remote "$(<"$work/$1")"
  # a line that is slow, and dotfiles that are large, would never come to an end
  if [[ $2 == *"No end within $network_limit s" ]]; then more=" (\`networkTimeout\` allows more)"; fi
  if [[ $url == /* && ! -e $url ]]; then verdict=offline; fi
  if [[ $verdict == offline ]]; then finish offline "${3:-$2}$more"; fi
  if [[ $2 == *chown* ]]; then remedy=''; fi
  if [[ $remedy == *certificate* ]]; then judge_certificate "$url" timeout 30; fi
  finish failed "$2${remedy:+; $remedy}"
}

# -- commands with a time limit; the last error is kept by name of the step

within() { # <seconds> <step> <command...>
  local seconds=$1 step=$2 code=0
  shift 2
  case "$1 ${2-}" in
    'chezmoi apply') timeout --kill-after=5 "$seconds" chezmoi "${quietly[@]}" "${@:2}" </dev/null 2>"$work/$step" 9>&- || code=$? ;;
    chezmoi*) ask_chezmoi "$seconds" "$step" "${@:2}"; return ;;
    *) timeout --kill-after=5 "$seconds" "$@" </dev/null 2>"$work/$step" 9>&- || code=$? ;;
  esac
  if ((code == 124 || code == 137)); then echo "No end within $seconds s" >>"$work/$step"; fi
  return "$code"
}
because() { # <step>
  local said line
  said=$(<"$work/$1")
  why "$said"
  line=$REPLY REPLY=''
  if [[ -n $repository && ${said,,} == *@(permission|ownership|not permitted)* ]]; then not_of "$(id -un)" "$repository"; fi
  if [[ $line == *'Invalid UTF-8'* ]]; then misnamed; fi
  echo "$line$REPLY"
}
# What durable-git.sh asks for. All runs as the user here.
# shellcheck disable=SC2317,SC2329 # durable-git.sh calls it
as_user() { # <seconds> <command...>
  timeout --kill-after=5 "$@" </dev/null 9>&-
}
# shellcheck disable=SC2317,SC2329
repo_git() { as_user "$limit" git "$@"; }
# shellcheck disable=SC2317,SC2329
repo_jj() { as_user "$limit" "${jj[@]}" "$@"; }
say() { echo "chezmoi-sync: $1"; }
note_step() {
  local file=$state/step
  if printf '%s\n' "$before_op" "$remote_commit" >"$file.new" && sync "$file.new" &&
    mv -T "$file.new" "$file" && sync "$state"; then return; fi
  rm -f "$file.new"
  REPLY="cannot write $file"
  return 1
}
must() { # <what> <command...>
  local what=$1
  shift
  within "$limit" must "$@" || finish failed "Cannot $what: $(because must)"
}
commit_of() { git rev-parse --verify --quiet "$1^{commit}" || true; }
ancestor() { [[ $1 == "$2" ]] || git merge-base --is-ancestor "$1" "$2" 2>/dev/null; } # <commit> <commit>

# Where the source and the remote's branches stand: the commits of HEAD in `head`, of branches by name in
# `refs`, and the names of those that hosts publish conflicts by in `published`. To be done after a change.
look() {
  local name commit
  refs=() published=()
  while read -r name commit; do
    refs[$name]=$commit
    if [[ $name == refs/remotes/origin/conflict/* ]]; then published+=("$name"); fi
  done < <(git for-each-ref --include-root-refs --format='%(refname) %(objectname)' HEAD refs/remotes/origin/ 2>/dev/null)
  head=${refs[HEAD]-}
}
revisions() { must 'read the history' "${jj[@]}" log --no-graph --revisions "$1" -T 'commit_id ++ "\n"'; }

owner_of() { stat -c 'which belongs to %U' "$1" 2>/dev/null || echo 'which is not there'; }

# -- the steps

take_lock() {
  [[ -d $state ]] || mkdir -p "$state"
  trap 'ended=yes; exit 1' USR1
  # the kernel holds it, so a crash cannot leave it behind; commands are started without it. Where there is no
  # room to make it, nobody has it.
  command exec 9>>"$state/lock" || finish failed "Cannot write $state/lock, $(owner_of "$state/lock")"
  if ! flock --nonblock 9; then
    echo "chezmoi-sync: locked: Another run has not ended yet (process $(<"$state/lock.pid"))"
    exit 0
  fi
  trap end EXIT
  look_how_it_ended "$state/status.json"
  echo $$ >"$state/lock.pid" || true
  work=$(mktemp -d) || finish failed 'Cannot make a directory for what is at work'
  echo "chezmoi-sync: phase: lock"
}

find_root() {
  local file hint=''
  if root=$(within "$limit" must chezmoi source-path); then return; fi
  file=$(sed -n -E 's/^chezmoi: open (\/[^:]+): .*/\1/p' "$work/must")
  if [[ -f $file ]]; then
    # what a power cut leaves of a file that was new; whoever is about to write it has it locked
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
  # `.chezmoiroot` may name what is not there; what is around it is the dotfiles all the same
  tree=$root
  until [[ -d $tree ]]; do tree=$(dirname "$tree"); done
  if [[ ! -d $root && ! -e $(git -C "$tree" rev-parse --show-toplevel 2>/dev/null)/.chezmoiroot ]]; then
    if [[ -z ${CHEZMOI_REPO_URL:-} ]]; then finish skipped "No dotfiles at $root, and no \`repoUrl\` to clone"; fi
    mkdir -p "$(dirname "$root")"
    if exists "$root"; then finish failed "Cannot clone to $root: something else is there"; fi
    # beside it and renamed, so that a clone that was cut off is not taken for the dotfiles
    local clone
    clone=$(dirname "$root")/.chezmoi-sync.clone
    rm -rf "$clone"
    if ! within "$network_limit" clone "${jj[@]}" git clone --colocate "$CHEZMOI_REPO_URL" "$clone"; then
      unreached clone "Cannot clone $CHEZMOI_REPO_URL: $(because clone)"
    fi
    # what the remote's own default branch has is not this host's, and must not pass for it
    if git -C "$clone" rev-parse --verify --quiet "$trunk" >/dev/null; then
      must "take the branch $branch" "${jj[@]}" --repository "$clone" new "$trunk_rev"
    fi
    sync --file-system "$clone"
    mv -T "$clone" "$root"
    tree=$root
    find_root # .chezmoiroot may move it
  fi
  repository=$(git -C "$tree" rev-parse --show-toplevel 2>"$work/open") ||
    finish failed "Cannot use $tree: $(because open)"
  # a source without a repository of its own may lie in one of the whole home
  if [[ $HOME/ == "$repository"/* || $(pwd -P)/ == "$repository"/* ]]; then finish failed "Cannot use $root: it is not a repository, but in $repository"; fi
  cd "$repository" || return
  git_dir=$(git rev-parse --git-dir)
  published_list=$git_dir/chezmoi-sync-published
  refuse_unended
  refuse_left_out
  drop_stale_locks "$git_dir"
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
# What its user has on a branch of its own is for no other host.
refuse_other_branch() {
  local name
  name=$(git symbolic-ref --quiet --short HEAD || true)
  if [[ -z $name || $name == "$branch" || -z $head || -z $from ]] || ancestor "$head" "$from" ||
    [[ $(git rev-parse --abbrev-ref '@{upstream}' 2>/dev/null) == "origin/$branch" ]]; then return; fi
  finish failed "$repository is on the branch \`$name\`, which is not in \`$branch\`: \`git checkout --detach\` there lets it be shared, \`git checkout $branch\` does not"
}

# One that a run was cut off in the making of has nothing in it but what git has. jj cannot read it, so that nobody
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

# What git was told to leave out of its working tree, or not to look at, jj would take for removed or edited. jj itself
# forgets it of a file, and not of the checkout.
refuse_left_out() {
  local file=''
  must 'read the source' git ls-files -v -z >"$work/index"
  IFS= read -rd '' file < <(grep -z -m 1 '^[a-zS] ' "$work/index") || true
  if [[ -z $file && $(git config core.sparseCheckout || true) != true ]]; then return; fi
  file=${file#? }
  finish failed "Cannot use $repository: git was told to leave out ${file:-some files}, or not to look at it, which jj does not know (\`git sparse-checkout disable\`, \`git update-index --no-skip-worktree --no-assume-unchanged\`)"
}

# git stops in the middle where it waits for its user. jj would take what is in the files for an edit, and end it; a
# bisection ends as HEAD is moved.
refuse_unended() {
  local each
  for each in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD BISECT_LOG rebase-merge rebase-apply; do
    if exists "$git_dir/$each"; then finish conflict "git is in the middle of something in $repository: \`git status\` there says how to end it"; fi
  done
}

# A run that was cut off in a step of jj: its text must not pass for the user's.
recover() {
  local fields=()
  [[ -e $state/step && -d .jj ]] || return 0
  # a program that was killed leaves git's lock behind, of any age where the clock was set meanwhile
  drop_locks "$git_dir"
  mapfile -t fields <"$state/step"
  # an older one has two lines more
  before_op=${fields[0]-} remote_commit=${fields[3]:-${fields[1]-}}
  if [[ ! $before_op =~ ^[0-9a-f]+$ ]]; then
    say "cannot be read, and removed: $state/step"
    rm -f "$state/step"
    return
  fi
  say 'an earlier run did not end, and what it began is put back'
  back_from 'put back what an earlier run began'
}

# Someone who resolves a conflict in the source is not disturbed. Also takes the source's present text
# into jj's history, so that nothing below can lose it.
refuse_unresolved() {
  local said open files conflict='conflicts() & ::@ & ~::remote_bookmarks()' question
  # the working copy comes last, as it has files with names of any kind
  question=("${jj[@]}" log --no-graph --reversed --revisions "@ | $conflict" -T "
    if(self.contained_in('$conflict'), 'conflict ' ++ commit_id ++ ' ')
    ++ if(current_working_copy, if(immutable, 'immutable ') ++ 'copy ' ++ $working_copy)")
  if ! said=$(within "$limit" stale "${question[@]}"); then
    # a run of jj that was killed may leave it stale
    if [[ $(<"$work/stale") == *'not updated since operation'* ]]; then
      finish_checkout '' || finish failed "Cannot finish a checkout of the source: $REPLY"
    fi
    said=$(must 'read the source' "${question[@]}")
    look
  fi
  copy=${said#*copy }
  open=${said%"copy $copy"}
  if [[ $open == *immutable* ]]; then
    finish failed "Nothing can be brought into the source: its working copy is immutable, by this user's setting of immutable_heads()"
  fi
  [[ -n $open ]] || return 0
  open=${open##*conflict }
  mapfile -t files < <("${jj[@]}" resolve --list 2>/dev/null | sed -E 's/ {2,}[0-9]+-sided.*//')
  add_conflict "${files[@]}"
  finish conflict "The source has conflicts to resolve: ${files[*]:-in ${open:0:12}}"
}

# Takes edits of targets in $HOME into the source, each as what it is relative to what chezmoi last wrote.
capture() {
  local row file targets=()
  uncaptured=()
  if ! compare; then
    # perhaps the trunk has the repair, so only what came from here is held back
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

  # the same for all targets, as each start of chezmoi counts
  local sources=() unchanged=() i
  must "read chezmoi's state" chezmoi state dump --format=json >"$work/state"
  must 'read the source' chezmoi dump --format=json --recursive=false -- "${targets[@]}" >"$work/dump"
  mapfile -t sources < <(must 'read the source' chezmoi source-path -- "${targets[@]}")
  if ((${#sources[@]} != ${#targets[@]})); then
    # a name with line ends in it
    sources=()
    for i in "${!targets[@]}"; do sources+=("$(must 'read the source' chezmoi source-path -- "${targets[i]}")"); done
  fi
  copy='' # as the source is about to change
  for i in "${!targets[@]}"; do capture_one "${targets[i]}" "${sources[i]}"; done
  ((${#unchanged[@]})) || return 0
  if re_add "${unchanged[@]}"; then
    captured+=("${unchanged[@]#"$HOME/"}")
    return
  fi
  # one that chezmoi does not take, as for what looks like a secret, keeps no other from it
  for file in "${unchanged[@]}"; do
    if re_add "$file"; then
      captured+=("${file#"$HOME/"}")
    else
      uncaptured+=("${file#"$HOME/"}: $(because capture)")
      keep "${file#"$HOME/"}" "cannot be captured: $(because capture)"
    fi
  done
}
# chezmoi may have been told to commit and push what it adds (`git.autoCommit`), which is done here: it finds another
# repository, that sees nothing of the source.
re_add() { # <file...>
  if [[ ! -e $work/apart ]]; then git init --quiet "$work/apart" && echo '*' >"$work/apart/.git/info/exclude"; fi
  GIT_DIR=$work/apart/.git within "$limit" capture chezmoi re-add --no-tty -- "$@"
}

# Adds a target to `unchanged` where the source is as it was when the target was written from it. Else
# the source went on meanwhile, as the file was edited while a run was going on: both are merged.
capture_one() { # <target> <source file>
  local file=$1 source=$2 target=${1#"$HOME/"} path last mode perm sum base
  case ${source##*/} in
    *.tmpl | encrypted_*.tmpl.*) keep "$target" 'a template, edited here' && return ;;
    create_* | modify_* | symlink_* | remove_*) keep "$target" 'not a plain file' && return ;;
  esac
  if [[ ! -f $file || -L $file || ! -f $source ]]; then keep "$target" 'not a plain file' && return; fi
  { read -r last && read -r mode && read -r perm; } < <(jq -r --arg key "$file" --arg target "$target" \
    --slurpfile dump "$work/dump" \
    '.entryState[$key] | if .type == "symlink" then .type else .contentsSHA256 // "" end, (.mode // 0) % 512, $dump[0][$target].perm' "$work/state")
  # chezmoi wrote a link, as with `mode = "symlink"`, and an editor has put a file in its place
  if [[ $last == symlink ]]; then keep "$target" 'not a plain file' && return; fi
  if [[ -z $last ]]; then keep "$target" 'was here before the dotfiles' && return; fi
  if [[ ${source##*/} == encrypted_* ]]; then
    must "read $target" chezmoi cat "$file" >"$work/theirs"
  else
    cp "$source" "$work/theirs"
  fi
  sum=$(sha256sum <"$work/theirs")
  if [[ ${sum%% *} == "$last" && $perm == "$mode" ]]; then
    unchanged+=("$file")
    return
  fi

  path=$(realpath --relative-to=. "$source")
  cp "$file" "$work/ours"
  base=$(commit_with "$path" "$last" "$work/base") || base=''
  if [[ -n $base && $((8#$(stat -c %a "$file" || echo 0))) == "$mode" ]] &&
    git merge-file --quiet -p "$work/ours" "$work/base" "$work/theirs" >"$work/merged"; then
    chmod --reference="$source" "$work/merged"
    # not beside it, where any name may be another file's
    cp -p "$work/merged" "$git_dir/chezmoi-sync-merged"
    mv -T "$git_dir/chezmoi-sync-merged" "$source"
    # now chezmoi and git know this very text, and the merged one is written over no other
    must "capture $target" git hash-object -w --no-filters "$work/ours" >/dev/null
    sum=$(sha256sum <"$work/ours")
    must "capture $target" chezmoi state set --bucket=entryState --key="$file" \
      --value="{\"type\":\"file\",\"mode\":$mode,\"contentsSHA256\":\"${sum%% *}\"}"
    captured+=("$target")
    return
  fi
  keep "$target" 'edited here and in the source'
  add_conflict "$path"
  # where no commit has it, as under another name, the edit is shown against what the source has; never in the clear
  if [[ -z $base && ${source##*/} != encrypted_* ]]; then base=$head; fi
  if [[ -n $base ]]; then home_sides+=("$path" "$base" "$target"); fi
}

# Prints the newest commit in which <file> has the content with <sum>, which goes to <where>.
commit_with() { # <file> <sum> <where>
  local commit sum
  while IFS= read -r commit; do
    git show "$commit:$1" >"$3" 2>/dev/null || continue
    sum=$(sha256sum <"$3")
    if [[ ${sum%% *} == "$2" ]]; then echo "$commit" && return; fi
  done < <(git --literal-pathspecs log --max-count=200 --format=%H HEAD -- "$1")
  return 1
}

# For jj: whether the working copy is empty, described or bare, and the files that it changes. A merge that changes no
# file is one all the same: it settles a conflict.
working_copy='if(empty && parents.len() < 2, "empty", if(description, "described", "bare " ++ diff.files().map(|f| f.path()).join(" ")))'
read_working_copy() { must 'read the source' "${jj[@]}" log --no-graph --revisions @ -T "$working_copy"; }

# Where the user has not told jj a name, commits carry the user's on this host.
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
      # its user is done with it as it is
      if ((${#nested[@]})); then finish failed "Cannot commit: ${nested[0]} has a repository of its own, in which jj takes the dotfiles for removed: move its .git away"; fi
      step 'commit' new
      ;;
    *) commit_sound "${1#bare }" ;;
  esac
  if [[ $1 != empty ]]; then look; fi
}

# jj looks into no directory with a repository of its own: it takes what was committed of that for removed. So that
# stays in the working copy, and is in no commit.
find_nested() {
  local each
  while IFS= read -rd '' each; do
    if [[ $(git --literal-pathspecs ls-tree -r HEAD -- "$each/" 2>/dev/null) != *' blob '* ]]; then continue; fi
    nested+=("$each")
    if target_of "$each"; then keep_uncommitted "$REPLY" 'has a repository of its own in the source, into which jj does not look'; fi
  done < <(find . -mindepth 2 \( -path './.git/*' -o -path './.jj/*' \) -prune -o \( -name .git -o -name .jj \) -printf '%P\0' |
    sed -z 's|/[^/]*$||')
}

# jj takes a file as it is, where git lets a filter, as that of git-crypt, make of it what others may see: a change of
# it is in no commit.
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

# What was captured into such a place is in the source alone, and not said to be captured.
keep_uncommitted() { # <target> <reason>
  local i
  keep "$1" "$2"
  for i in "${!captured[@]}"; do
    if [[ ${captured[i]}/ == "$1"/* ]]; then unset "captured[i]"; fi
  done
}

# A template that cannot be read stays in the working copy, as it was broken here, and so does what jj does not look
# into; all else is committed.
commit_sound() { # <files>
  local names=$1 sound='all()' target path
  for path in "${nested[@]}"; do
    quote "$path"
    sound+=" ~ root:$REPLY"
  done
  for path in "${filtered[@]}"; do
    quote "$path"
    sound+=" ~ root-file:$REPLY"
  done
  for target in "${unreadable[@]}"; do
    [[ ${unreadable_because["/$target"]} == template:* ]] || continue
    path=$(must 'read the source' chezmoi source-path -- "$HOME/$target")
    quote "$(realpath --relative-to=. "$path")"
    sound+=" ~ root-file:$REPLY"
  done
  if [[ $sound != 'all()' ]]; then
    names=$(must 'read the source' "${jj[@]}" diff --name-only "$sound" | paste -sd ' ')
    [[ -n $names ]] || return 0
  fi
  # an argument has a limit, and a person reads no thousand names
  if ((${#names} > 2000)); then names="${names:0:2000} ..."; fi
  identity
  step 'commit' commit --message "Dotfiles of $host: $names" "$sound"
}

# A file of the source that jj was told not to track is in no commit, though chezmoi applies it here.
find_untracked() {
  local target
  untracked=()
  git -C "$root" ls-files --others -z --exclude=.jj >"$work/others" 2>/dev/null || return 0
  [[ -s $work/others ]] || return 0
  within "$limit" managed chezmoi managed --exclude=none --path-style=all --format=json >"$work/managed" || return 0
  while IFS= read -rd '' target; do
    if [[ $target == */ ]]; then
      target=${target%/}
      keep_uncommitted "$target" 'a repository of its own in the source, which jj does not look into'
      untracked+=("$target (a repository of its own, as which it could be an external)")
    else
      keep_uncommitted "$target" 'in the source, but jj does not track it'
      untracked+=("$target")
    fi
  done < <(jq -j --rawfile others "$work/others" '
    ($others | split("\u0000") | map({key: ., value: true}) | from_entries) as $untracked
    | (to_entries[] | .key + (("", "/") as $end | select($untracked[.value.sourceRelative + $end]) | $end)),
      ($untracked | keys[] | select(test("(^|/)[.]chezmoi"))) | . + "\u0000"' "$work/managed")
}

# What git keeps beside its files, and jj does not fetch: a submodule is no directory then, and a file of Git LFS is
# the pointer to it. Neither is put into the home.
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
      keep_unfetched "${file#HEAD:}" 'a pointer of Git LFS, and the file that it stands for is not fetched'
    done < <(git grep -z --files-with-matches -I --all-match -e '^version https://git-lfs\.github\.com/spec/' \
      -e '^oid sha256:[0-9a-f]\{64\}$' HEAD 2>/dev/null || true)
  fi
}
keep_unfetched() { # <file of the repository> <reason>
  target_of "$1" || return 0
  keep "$REPLY" "$2"
  unfetched=yes
}
# The target of what is in the repository, in REPLY. Fails for what is none, and no concern of the home.
target_of() { # <file of the repository>
  local below
  # chezmoi takes a path by its own name of the source alone, which may be a link
  below=$(realpath --relative-to=. "$root")/
  below=${below#./}
  [[ /$1 != */.* && $1 == "$below"* ]] &&
    REPLY=$(within "$limit" target chezmoi target-path "$root/${1#"$below"}") && REPLY=${REPLY#"$HOME/"}
}

fetch() {
  if [[ -z $remote ]]; then
    echo "The dotfiles have no remote: set \`repoUrl\`" >"$work/fetch"
    return 1
  fi
  # all, also where git was told to fetch one branch alone: other hosts name their conflicts by others
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
    sleep "0.$((RANDOM % 10))" # two that lost to a third do not meet again
    before=$to
    enter fetch
    fetch || end_offline fetch
    if [[ $to != "$before" ]]; then continue; fi
    end_offline push
  done
  finish failed "Cannot push: others were first $tries times"
}

# A trunk that was rewritten dropped commits on purpose; a rebase onto it would bring them back.
refuse_rewritten() {
  local last=''
  if [[ -s $state/trunk ]]; then read -r last <"$state/trunk" || true; fi
  if [[ -z $to || $last == "$to" ]]; then return; fi
  last=$(commit_of "${last:-${from:-none}}")
  if [[ -n $last ]] && ! ancestor "$last" "$to" && ancestor "$last" "$head"; then
    finish diverged "The trunk was rewritten: ${last:0:12} is not in ${to:0:12}"
  fi
}
# Once it is in the source: one that conflicts with it is not, and would hide what was rewritten before it.
remember_trunk() {
  local last=''
  if [[ -s $state/trunk ]]; then read -r last <"$state/trunk" || true; fi
  if [[ -z $to || $last == "$to" ]]; then return; fi
  echo "$to" >"$state/trunk.new"
  mv "$state/trunk.new" "$state/trunk"
}

# Puts this host's commits onto the trunk. When they conflict, all is as it was, and the run ends.
integrate() {
  local merge files=()
  if [[ -z $to ]] || ancestor "$to" "$head"; then return; fi
  refuse_nested
  refuse_in_the_way
  if { [[ -z $head ]] || ancestor "$head" "$to"; } && [[ $(read_working_copy) == empty ]]; then
    begin 'take the trunk' "$to"
    without_head within "$limit" step "${jj[@]}" new "$trunk_rev" || give_up 'take the trunk' "$REPLY"
    end_step 'take the trunk'
    look
    return
  fi
  if compatible; then
    identity
    if rebase "$to" --branch @ --onto "$trunk_rev"; then return; fi
    # One commit may conflict where all together do not, or be another host's, which stays as it is.
    must 'merge the trunk' "${jj[@]}" new --no-edit @- "$trunk_rev" --message "Merge the trunk into dotfiles of $host"
    # a run that was cut off may have left one of its own
    merge=$(revisions "latest($trunk_rev+ & @-+)")
    if rebase "$merge" --source @ --onto "$merge"; then return; fi
    must 'take a merge back' "${jj[@]}" abandon "$merge"
  fi
  list_conflicts
  if ((!${#own_files[@]})); then
    # what is in no commit conflicts, where no commit does
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

# What jj has for removed conflicts with what the trunk makes of it, and what is there is in no commit.
refuse_nested() {
  local each
  for each in "${nested[@]}"; do
    if [[ -n $(git --literal-pathspecs diff --name-only "$head...$to" -- "$each" 2>/dev/null) ]]; then
      finish failed "Cannot take the trunk: it changes $each, which has a repository of its own here: move its .git away"
    fi
  done
}

# jj leaves what it does not track where it is, also where the trunk has something: and takes it for an edit of that,
# or that for removed, from then on.
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

# Fails where it leads to a conflict, or changes commits of others: then all is as it was.
rebase() { # <where it leads> <options>
  begin 'rebase' "$1"
  shift
  if ! rebase_once "$@"; then
    # A rebase that was put back, done again in the same second, gives the same commit, which jj refuses to make.
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
  back_from 'end a rebase'
  look
  return 1
}
rebase_once() {
  : >"$work/step"
  without_head within "$limit" step "${jj[@]}" rebase "$@"
}

# -- steps that move git's HEAD

# Commits what is in the files, or puts all back and ends.
step() { # <what> <arguments of jj...>
  begin "$1" ''
  within "$limit" step "${jj[@]}" "${@:2}" || give_up "$1" ''
  end_step "$1"
}
# A step that cannot be written down is not begun: the next run would not know how to go on from the middle of it.
begin() { # <what> <commit that it leads to>
  # what was written lately may not be on the disk yet, and a power cut would take it
  must "$1" sync --file-system .
  before_op=$(must 'read the history' "${jj[@]}" operation log --no-graph --limit 1 -T 'id')
  after_op='' remote_commit=$2
  note_step || finish failed "Cannot $1: $REPLY"
}
end_step() { # <what>
  head_follows || give_up "$1" "$REPLY"
  rm -f "$state/step"
}
give_up() { # <what> <reason, or what jj said last>
  local said=${2:-$(because step)}
  if go_back; then rm -f "$state/step"; fi
  finish failed "Cannot $1: $said"
}
# Goes back to how it was before a step, unless somebody was at work since: then things stay as they are.
back_from() { # <what>
  local code=0
  go_back || code=$?
  if [[ $code == 1 ]]; then finish failed "Cannot $1: $REPLY"; fi
  rm -f "$state/step"
}

# Whether the commits here and the trunk go together, found without a change of the source. chezmoi, too,
# has to read the result: two hosts may give a file different attributes, which no line of text shows.
compatible() {
  local tree code=0
  unsound=()
  tree=$(merged HEAD "$to") || code=$?
  # two histories without a common commit are not merged
  if ((code)) && { [[ -n $tree ]] || ! git merge-base HEAD "$to" >/dev/null 2>&1; }; then return 1; fi
  if ((code)) || ! { mkdir "$work/tree" "$work/empty" && files_of "$tree"; }; then
    finish failed "Cannot try a merge with the trunk: $(because archive)"
  fi
  # what is in the home is no fault of the source
  if ! within "$limit" managed chezmoi --source "$work/tree" --destination "$work/empty" managed >/dev/null; then
    mapfile -t unsound < <(grep -oE "$work/tree/[^,)]+" "$work/managed" | sed "s|^$work/tree/||")
    if ((!${#unsound[@]})); then finish failed "Cannot read the source with the trunk: $(because managed)"; fi
  fi
  rm -rf "$work/tree" "$work/empty"
  ((!${#unsound[@]}))
}

# Writes the files of a commit as they are in it: jj knows no filters of git either, and one, as that of Git LFS, may ask
# for what cannot be had.
files_of() { # files_of <tree>
  local filter filters=()
  while IFS= read -rd '' filter; do
    filters+=(-c "$filter.smudge=" -c "$filter.process=" -c "$filter.required=false")
  done < <(git config --null --name-only --get-regexp '^filter\.' | sed -z 's/\.[^.]*$//' | sort -zu)
  within "$limit" archive git "${filters[@]}" archive --output="$work/tree.tar" "$1" || return
  tar -x -C "$work/tree" -f "$work/tree.tar" && rm "$work/tree.tar"
}

# Markers that were left in a file read as text to jj, and would be pushed and applied.
refuse_markers() {
  local at=$head changed=() marked=()
  # what its user commits by hand is applied before that
  if [[ ${CHEZMOI_AUTO_COMMIT:-true} != true ]]; then
    at=$(must 'read the source' "${jj[@]}" log --no-graph --revisions @ -T commit_id)
  fi
  if [[ -z $to || -z $at || $to == "$at" ]]; then return; fi
  mapfile -d '' -t changed < <(git diff --name-only -z --no-renames --diff-filter=d "$to" "$at")
  mapfile -d '' -t marked < <(comm -z -23 <(with_markers "$at") <(with_markers "$to"))
  ((${#marked[@]})) || return 0
  add_conflict "${marked[@]}"
  finish conflict "Conflict markers are left in ${marked[*]}"
}
# Which of `changed` have them. git looks itself, as one may be larger than what bash has room for.
with_markers() { # <commit>
  ((!${#changed[@]})) || printf '%s\0' "${changed[@]}" | xargs -0 git --literal-pathspecs grep -lzaE --all-match \
    -e '^<{7,} ' -e '^>{7,} ' "$1" -- | sed -z 's/^[^:]*://' | sort -z
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
  # a repository that git cloned does not follow its remote's branch yet
  grep -qi 'non-tracking' "$work/push" &&
    within "$limit" push "${jj[@]}" bookmark track "$branch@origin" &&
    within "$network_limit" push "${command[@]}"
}

# -- conflicts, for people here and on other hosts

# Prints the tree of two commits together; ends with 1 where they conflict.
merged() { # <commit> <commit>
  git -c merge.renames=false merge-tree --write-tree --no-messages "$1" "$2" 2>/dev/null
}
# Leaves the files in which two commits conflict in `files`. Where one has a directory in the place of a file,
# git calls the file `<file>~<commit>`.
conflicting() { # <commit> <commit>
  local file
  files=()
  while IFS= read -rd '' file; do
    file=${file%"~$1"}
    files+=("${file%"~$2"}")
  done < <(git -c merge.renames=false merge-tree --write-tree --name-only --no-messages -z "$1" "$2" 2>/dev/null | tail -zn +2)
}

# The files that one has changed, or all that differ where both have no commit in common.
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
# Whether this clone has published it, or has it in what it is at.
published_here() { # <ref of the remote>
  [[ $1 == "refs/remotes/origin/$mine" || $1 == "refs/remotes/origin/$mine.home" ]] || return 1
  grep --quiet --no-messages --line-regexp "${refs[$1]}" "$published_list" || ancestor "${refs[$1]}" "$head"
}

# Publishes this host's side of a conflict, or takes it back once there is none. What was edited at home and what was
# committed may conflict at once, from different commits on, so that no one commit says both.
publish() {
  local own='' own_home='' ref
  list_conflicts
  if ((${#own_files[@]} && !${#home_sides[@]})) || { [[ -n $to ]] && ! ancestor "$to" "$head"; }; then own=$head; fi
  # what the trunk has says nothing of what is in no commit
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
  # noted first: what is published and not known for it would be taken for an earlier clone's
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
  # one that came from elsewhere
  if [[ -n $there ]]; then within "$limit" bookmark "${jj[@]}" bookmark track "$1@origin" || true; fi
  if [[ -n $2 ]]; then
    must 'name the conflict' "${jj[@]}" bookmark set "$1" --revision "$2" --allow-backwards
  else
    within "$limit" bookmark "${jj[@]}" bookmark delete "exact:$1" || true
  fi
  within "$network_limit" publish "${jj[@]}" git push --remote origin --bookmark "exact:$1" --allow-empty-description
}

# A commit of the texts in $HOME that conflict with the source, on the commit that they were edited in.
commit_of_home() { # <bookmark that it gets>
  local side file base target tree previous
  export GIT_INDEX_FILE=$work/index
  base=${home_sides[1]}
  git read-tree "$base"
  for ((side = 0; side < ${#home_sides[@]}; side += 3)); do
    file=${home_sides[side]} target=${home_sides[side + 2]}
    git update-index --add --cacheinfo "100644,$(git hash-object -w --no-filters "$HOME/$target"),$file"
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

# -- the last step

# Writes what the source holds to $HOME, but for what is in no commit; that stays and is named in `kept`.
apply() {
  local row target line said before=() still='/'
  local -A asked=() tried=() failed=()
  edited_meanwhile=''
  # what came may have another root
  if [[ $applied_from != "$head" ]]; then find_root; fi
  find_unfetched
  # nothing has changed since capture has looked
  if [[ -z $broken && $applied_from == "$head" ]] && ((!${#rows[@]} && !${#unreadable[@]})); then return; fi
  applied_from=''
  for _ in 1 2 3; do
    unapplied=()
    if ! compare; then
      broken="Cannot tell what an apply would do: $(because status)"
      return
    fi
    if ((!${#rows[@]} && !${#unreadable[@]})); then break; fi
    shield
    for target in "${unreadable[@]}"; do
      keep "$target" "cannot be applied: ${unreadable_because["/$target"]}"
      unapplied+=("$target: ${unreadable_because["/$target"]}")
    done
    before+=("${rows[@]}")
    for row in "${rows[@]}"; do asked["/$row"]=yes; done
    for row in "${planned[@]}"; do tried["/$row"]=yes; done
    if ! apply_rows; then
      # without an answer to its question whether to write over an edit, chezmoi ends with EOF
      said=$(<"$work/applied")
      for row in "${rows[@]}"; do
        target=${row:3}
        said=${said//"chezmoi: $target: EOF"/}
        if [[ $'\n'$said == *$'\n'"chezmoi: $target: "* ]]; then
          line=${said#*"chezmoi: $target: "}
          failed["/$target"]=${line%%$'\n'*}
          said=${said/"chezmoi: $target: ${failed["/$target"]}"/}
        fi
      done
      line=$(grep -a '^chezmoi: ' <<<"$said" | grep -avE '^chezmoi: warning:|: EOF$' | tail -n 1 || true)
      if [[ $said == *'unknown flag: --less-interactive'* ]]; then
        broken='Cannot apply: this needs chezmoi 2.66 or newer'
      elif [[ $said == *"No end within $apply_limit s"* ]]; then
        # ended with what it was at, it says nothing itself
        broken="Cannot apply: no end within $apply_limit s"
      elif [[ -n $line ]]; then broken="Cannot apply: ${line#chezmoi: }"; fi
    fi
    if [[ -z $again ]]; then
      compare || rows=("${before[@]}")
      break
    fi
  done
  for row in "${before[@]}"; do
    target=${row:3}
    if [[ -z ${failed["/$target"]-} || $still == *"/$target//"* ]]; then continue; fi
    keep "$target" "cannot be applied: ${failed["/$target"]}"
    unapplied+=("$target: ${failed["/$target"]}")
    still+="$target//"
  done
  for row in "${rows[@]}"; do
    target=${row:3}
    if [[ $row == ?R* ]]; then continue; fi
    still+="$target//"
    if [[ -n ${why["/$target"]-} ]]; then continue; fi
    if [[ $row == ' '* ]]; then
      # it could not be applied, or a script has made it meanwhile
      if [[ -z ${asked["/$row"]-} ]]; then
        edited_meanwhile=yes
      elif [[ -z $broken && -n ${tried["/$row"]-} ]]; then
        keep "$target" 'not as the source says after an apply either, as with a script that never says the same'
      fi
      continue
    fi
    keep "$target" 'edited here since'
    edited_meanwhile=yes
  done
  for row in "${before[@]}"; do
    if [[ $still != *"/${row:3}//"* ]]; then applied+=("${row:3}"); fi
  done
  if ((${#applied[@]})); then
    mapfile -d '' -t applied < <(printf '%s\0' "${applied[@]}" | sort -zu)
  fi
}

main

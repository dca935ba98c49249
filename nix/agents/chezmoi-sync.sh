# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Keeps this user's dotfiles in step with other hosts: captures edits, made in $HOME or in chezmoi's source
# (a colocated jj repository), commits them, rebases them onto the trunk, pushes and applies.
#
# Three rules come before everything else:
# - What is here and in no commit is never overwritten or removed (chezmoi-keep.sh). chezmoi itself compares
#   each target with what it last wrote, right before it writes, and leaves a changed one alone when no one
#   answers its question.
# - A conflict is neither pushed nor applied, nor left in the source: a rebase is first tried without
#   touching it, so the source keeps this host's text and `chezmoi apply` by hand does no harm.
# - A conflict is seen on both hosts. Only the host that pushed second meets it, so it publishes its side
#   as the bookmark `conflict/<host>`, which every other host fetches; `conflict/<host>.home` is an edit
#   at home, where a commit conflicts, too. A bookmark that this clone did not publish is from an earlier
#   clone of this host, and nowhere else: it stays until it is in the trunk, if need be as
#   `conflict/<host>.former-<commit>`.
#
# Settings come as CHEZMOI_* from the wrapper. Prints its phases and writes status.json.
#
# Parts of one program, in the order of `agent` in ../modules/chezmoi-sync.nix; this is the last.
#
# Starting a program and forking are slow on an emulated CPU. So git and jj are asked several things at
# once, their answers are kept as long as they hold, and small results come in REPLY.

branch=${CHEZMOI_BRANCH:-main}
host=${CHEZMOI_HOST:-$(uname -n)}
network_limit=${CHEZMOI_NETWORK_LIMIT:-60} # seconds for a fetch or a push
apply_limit=${CHEZMOI_APPLY_LIMIT:-900}    # seconds, including the user's own scripts
tries=12                                   # pushes that others may win before this host gives up

trunk=refs/remotes/origin/$branch # as git names it
trunk_rev="\"$branch\"@origin"    # as jj names it
mine=conflict/$host
merged_refs=refs/chezmoi-sync/merged # texts at home that were merged into the source, until that is applied
git_dir=.git
published_list=.git/chezmoi-sync-published # commits that this clone published; in .git, so that it goes with the clone
# keeps commits whose remote bookmark is gone, and files of any size
jj=(jj --no-pager --color=never --config=ui.log-word-wrap=false --config=git.abandon-unreachable-commits=false
  --config=snapshot.max-new-file-size=0)

TZ=UTC printf -v started '%(%FT%TZ)T' -1
phase=lock from='' to='' repository='' root='' remote=''
copy=''                                     # the working copy as `refuse_unresolved` found it, until it is changed
captured=() applied=() conflicts=()         # objects of JSON in `conflicts`
kept=()                                     # targets that stay as they are,
declare -A why=() copies=()                 # for what reason, and where a former text is, by "/<target>"
uncaptured=() unapplied=() untracked=()     # faults of single targets, which hold nothing else back
trackable=''                                # whether jj could be told to track one of them
filtered=()                                 # changed files that git would pass through a filter
nested=()                                   # directories of dotfiles with a repository of their own
unfetched=''                                # whether git has what jj does not fetch
own_files=()                                # files in conflict on this host
home_sides=()                               # source file, base commit and a copy of the text of each edit that conflicts
ended='' work=''
remote_commit='' # the commit that a step of jj leads to
pushed='' broken='' edited_meanwhile='' applied_from='' identified='' # what failed is in `broken`, and holds nothing else back

main() {
  cd || exit
  HOME=$PWD # as chezmoi writes it in its state
  take_lock
  # a system unit does not know where the user's session has its sockets, such as gpg-agent's
  if [[ -z ${XDG_RUNTIME_DIR-} && -O /run/user/$UID ]]; then export XDG_RUNTIME_DIR=/run/user/$UID; fi
  # COLUMNS: without a terminal, jj starts a program twice to ask for its width
  export GIT_TERMINAL_PROMPT=0 LC_ALL=C.UTF-8 COLUMNS=80
  export "${durable[@]}"
  enter clone
  open_repository
  refuse_unresolved
  # a round leaves alone what is edited while it runs, and the next round takes it in
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
  if [[ -z $broken ]]; then forget_merged; fi
  summary
}

# -- the last step

# Writes the source to $HOME, but not over what is in no commit; that stays and is named in `kept`.
apply() {
  local row target line said before=()
  local -A asked=() tried=() failed=() still=()
  edited_meanwhile=''
  # new commits may have moved the root
  if [[ $applied_from != "$head" ]]; then find_root; fi
  find_unfetched
  # nothing has changed since capture looked
  if [[ -z $broken && $applied_from == "$head" ]] && ((!${#rows[@]} && !${#unreadable[@]})); then return; fi
  applied_from=''
  for _ in 1 2 3; do
    unapplied=()
    if ! compare; then
      broken="Cannot tell what an apply would do: $(because status)"
      return
    fi
    if ((!${#rows[@]} && !${#unreadable[@]})); then break; fi
    refuse_begun
    shield
    for target in "${unreadable[@]}"; do
      keep "$target" "cannot be applied: ${unreadable_because["/$target"]}"
      unapplied+=("$target: ${unreadable_because["/$target"]}")
    done
    before+=("${rows[@]}")
    for row in "${rows[@]}"; do asked["/$row"]=yes; done
    for row in "${planned[@]}"; do tried["/$row"]=yes; done
    if ! apply_rows; then
      # without an answer to its question whether to overwrite an edit, chezmoi ends with EOF
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
        # ended by the time limit, chezmoi prints nothing itself
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
    if [[ -z ${failed["/$target"]-} || -n ${still["/$target"]-} ]]; then continue; fi
    keep "$target" "cannot be applied: ${failed["/$target"]}"
    unapplied+=("$target: ${failed["/$target"]}")
    still["/$target"]=yes
  done
  for row in "${rows[@]}"; do
    target=${row:3}
    if [[ $row == ?R* ]]; then continue; fi
    still["/$target"]=yes
    if [[ -n ${why["/$target"]-} ]]; then continue; fi
    if [[ $row == ' '* ]]; then
      # it could not be applied, or a script has made it meanwhile
      if [[ -z ${asked["/$row"]-} ]]; then
        edited_meanwhile=yes
      elif [[ -z $broken && -n ${tried["/$row"]-} ]]; then
        keep "$target" 'still differs from the source after an apply, as with a script whose output changes each time'
      fi
      continue
    fi
    keep "$target" 'edited here since'
    edited_meanwhile=yes
  done
  for row in "${before[@]}"; do
    if [[ -z ${still["/${row:3}"]-} ]]; then applied+=("${row:3}"); fi
  done
  if ((${#applied[@]})); then
    mapfile -d '' -t applied < <(printf '%s\0' "${applied[@]}" | sort -zu)
  fi
}

main

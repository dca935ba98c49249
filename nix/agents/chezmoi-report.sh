# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# What a run of chezmoi-sync reports: its phases, its outcome, and the targets that are kept or conflict.

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

# Without room for a new file, overwrites the old one, which needs none. A status that is wrong is
# worse than none, so one that cannot be replaced is removed.
put_status() { # <text>
  local file=$state/status.json size
  # a rename over a file also brings its data to the disk, and a rename to a new name does not
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
  # the other fields follow at the end
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
  # in a subshell, as of `$(must …)`, the whole program has to end, too
  if ((BASH_SUBSHELL)); then kill -s USR1 $$; fi
  exit "$code"
}

# For errors that nothing else handles, such as a full /tmp: the last run's outcome must not pass for this one's.
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
# Clears the list, except for what was put aside.
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
  # the same conflict may be found twice
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
    finish failed "jj takes the dotfiles in ${names%, } for removed, as that is a repository of its own: they stay unchanged on all hosts until its .git is moved out of $repository"
  fi
  if ((${#filtered[@]})); then
    printf -v names '%s, ' "${filtered[@]}"
    finish failed "git passes ${names%, } through a filter, which jj does not know: it is not committed, as jj would publish the unfiltered text"
  fi
  if ((${#untracked[@]})); then
    printf -v names '%s, ' "${untracked[@]}"
    finish failed "jj does not track ${names%, }, so it stays on this host${trackable:+ (\`jj file track\` in $root)}"
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
    # against the trunk that was fetched last
    refuse_markers
    enter apply
    apply
    # faults that need a person are reported without a network, too
    if [[ -n $broken ]] || ((${#uncaptured[@]} + ${#unapplied[@]})); then summary; fi
  fi
  unreached "$1" "Cannot $1: $said" "$said"
}
# Ends the run because the remote gave nothing: as offline where that may pass by itself, as it may for a directory on
# a disk that is not mounted now.
unreached() { # <step> <reason> [<reason when offline>]
  local url=${remote:-${CHEZMOI_REPO_URL:-}} more=''
  judge_remote "$(<"$work/$1")"
  # large dotfiles over a slow line would never come to an end
  if [[ $2 == *"No end within $network_limit s" ]]; then more=" (\`networkTimeout\` allows more)"; fi
  if [[ $url == /* && ! -e $url ]]; then verdict=offline; fi
  if [[ $verdict == offline ]]; then finish offline "${3:-$2}$more"; fi
  if [[ $2 == *chown* ]]; then remedy=''; fi
  if [[ $remedy == *certificate* ]]; then judge_certificate "$url" timeout 30; fi
  finish failed "$2${remedy:+; $remedy}"
}

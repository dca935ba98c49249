# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Commands with a time limit, whose last error is kept by name of the step, and queries of the repository.

unsigned=(--config=signing.behavior=drop --config=git.sign-on-push=false)
within() { # <seconds> <step> <command...>
  local seconds=$1 step=$2 code=0
  shift 2
  case "$1 ${2-}" in
    'chezmoi apply') timeout --kill-after=5 "$seconds" chezmoi "${quietly[@]}" "${@:2}" </dev/null 2>"$work/$step" 9>&- || code=$? ;;
    chezmoi*) ask_chezmoi "$seconds" "$step" "${@:2}"; return ;;
    *) timeout --kill-after=5 "$seconds" "$@" </dev/null 2>"$work/$step" 9>&- || code=$? ;;
  esac
  if ((code == 124 || code == 137)); then echo "No end within $seconds s" >>"$work/$step"; fi
  # the signing key may need a passphrase, and no user is here to enter it
  if ((code)) && [[ $1 == jj && ${jj[*]} != *"${unsigned[*]}"* ]] && grep --quiet 'Signing error' "$work/$step"; then
    if [[ ! -e $work/unsigned ]]; then say 'there is no key here to sign with, so commits are unsigned' >&2; fi
    : >"$work/unsigned"
    jj+=("${unsigned[@]}")
    within "$seconds" "$step" jj "${unsigned[@]}" "${@:2}"
    return
  fi
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
# The functions that durable-git.sh needs. Everything runs as the user here.
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

# Reads where the source and the remote's branches stand: the commit of HEAD in `head`, of branches by name in
# `refs`, and the names of branches in which hosts publish conflicts in `published`. Call it after a change.
head='' published=()
declare -A refs=()
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

owner_of() { stat -c 'which belongs to %U' "$1" 2>/dev/null || echo 'which does not exist'; }

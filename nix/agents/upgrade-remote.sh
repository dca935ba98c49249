# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # variables are shared by the parts of the program
# Mode `remote`: the flake is elsewhere, and no user has a repository of it here.

fetch_remote() {
  local url=${UPGRADE_FLAKE_URL%%\?*} query='' mirror=$state/remote.git said code=0
  if [[ $UPGRADE_FLAKE_URL == *\?* ]]; then query="&${UPGRADE_FLAKE_URL#*\?}"; fi
  builder=("${detached[@]}" timeout --kill-after=10 "$build_limit")
  if [[ $url != git+* ]]; then
    fetch_flake
    return
  fi
  # the upgrade keeps a mirror, because only history tells whether a revision follows the last one
  fetch_mirror
  # everything in it can be fetched again
  if [[ $code != 0 ]] && is_spoilt_mirror "$mirror"; then
    say "damaged, and made anew: $mirror"
    rm -rf "$mirror"
    fetch_mirror
  fi
  [[ $code == 0 ]] || fetch_failed "$code" "$said"
  remote_commit=$(git -C "$mirror" rev-parse refs/heads/trunk)
  if [[ $deployed_remote =~ ^[0-9a-f]{40} && $accepted != "$remote_commit" ]] &&
    ! git -C "$mirror" merge-base --is-ancestor "$deployed_remote" "$remote_commit" 2>/dev/null; then
    stop diverged "$UPGRADE_BRANCH was rewritten: ${remote_commit:0:12} does not descend from ${deployed_remote:0:12}, which this host had; \`sudo nix-local-upgrade --accept $remote_commit\` takes it"
  fi
  candidate=$remote_commit revision=$remote_commit
  flake="git+file://$mirror?ref=refs/heads/trunk&rev=$candidate$query"
}

is_spoilt_mirror() { # is_spoilt_mirror <repository>
  local found=0
  timeout --kill-after=10 600 git --git-dir "$1" fsck --connectivity-only >/dev/null 2>&1 || found=$?
  # one that is too large to check in that time does not count as damaged
  [[ $found != 0 && $found != 124 && $found != 137 ]]
}

fetch_mirror() { # leaves the exit status in `code`, and the output in `said`
  code=0
  if [[ ! -s $mirror/HEAD || ! -d $mirror/refs || ! -d $mirror/objects ]]; then
    # a run that was cut off here may have left an incomplete repository
    rm -rf "$mirror"
    git init --quiet --bare "$mirror" || stop failed "Cannot make $mirror"
  fi
  said=$(GIT_TERMINAL_PROMPT=0 env "${durable[@]}" "${detached[@]}" timeout --kill-after=10 "$UPGRADE_FETCH_TIMEOUT" git -C "$mirror" fetch --quiet --no-tags \
    "${url#git+}" "+refs/heads/$UPGRADE_BRANCH:refs/heads/trunk" 2>&1) || code=$?
}

# Fetches a flake whose history is out of reach: a revision that is older than the last one is refused.
fetch_flake() {
  local metadata modified said code=0 url=${UPGRADE_FLAKE_URL%%\?*}
  # in such a URL the branch is a part of the path, before the query
  if [[ $url =~ ^(github|gitlab|sourcehut):[^/]+/[^/]+$ ]]; then url+=/$UPGRADE_BRANCH; fi
  url+=${UPGRADE_FLAKE_URL#"${UPGRADE_FLAKE_URL%%\?*}"}
  metadata=$("${detached[@]}" timeout --kill-after=10 "$UPGRADE_FETCH_TIMEOUT" nix --extra-experimental-features 'nix-command flakes' \
    flake metadata --json --refresh "$url" 2>"$work/said") || code=$?
  if [[ $code != 0 ]]; then
    read_build_reason
    fetch_failed "$code" "$(grep -E '^(fatal|ssh|curl): ' "$work/said" || true)"$'\n'"error: $build_reason"
  fi
  candidate=$(jq --raw-output '.revision // .locked.narHash' <<<"$metadata")
  modified=$(jq --raw-output '.lastModified // 0' <<<"$metadata")
  flake=$(jq --raw-output '.url' <<<"$metadata")
  remote_commit=$modified revision=$candidate
  if [[ $deployed_remote =~ ^[0-9]+$ && $modified -lt $deployed_remote && $accepted != "$candidate" ]]; then
    stop diverged "${candidate:0:19} is older than what this host had; \`sudo nix-local-upgrade --accept $candidate\` takes it"
  fi
}

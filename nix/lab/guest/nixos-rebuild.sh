#!/usr/bin/bash
# The parts of nixos-rebuild that make sense in the embedded guest: it builds the host from labConfigurations
# instead of nixosConfigurations, and activates the result in the same way as NixOS.
set -euo pipefail

profile=/nix/var/nix/profiles/system
usage='Usage: nixos-rebuild switch|boot|test|build|dry-build|dry-activate|list-generations [--flake <flake>[#<host>]]
         [--rollback] [--sudo] [options of nix build, such as --show-trace or --option <name> <value>]'
fail() {
  echo "error: $1" >&2
  exit "${2:-1}"
}

action='' flake='' rollback='' sudo=() nix=()
while [[ $# -gt 0 ]]; do
  case $1 in
    switch | boot | test | build | dry-build | dry-activate | list-generations)
      [[ -z $action ]] || fail "Cannot do both $action and $1" 2
      action=$1
      ;;
    --flake)
      flake=${2:?--flake needs a flake}
      shift
      ;;
    --flake=*) flake=${1#*=} ;;
    --rollback) rollback=1 ;;
    --sudo | --use-remote-sudo) sudo=(sudo) ;;
    # ignored: flakes have no channels, and this script never re-executes itself
    --upgrade | --fast | --no-reexec) ;;
    --option | --override-input)
      nix+=("$1" "${2:?$1 needs two values}" "${3:?$1 needs two values}")
      shift 2
      ;;
    --update-input | --max-jobs | -j | --cores)
      nix+=("$1" "${2:?$1 needs a value}")
      shift
      ;;
    -h | --help)
      echo "$usage"
      exit 0
      ;;
    -*) nix+=("$1") ;;
    *) fail "Cannot read \`$1\`"$'\n'"$usage" 2 ;;
  esac
  shift
done
[[ -n $action ]] || fail "Cannot tell what to do"$'\n'"$usage" 2

if [[ $action == list-generations ]]; then
  exec nix-env --profile "$profile" --list-generations
fi
if [[ $action != *build && $EUID != 0 && ${#sudo[@]} == 0 ]]; then
  fail "Only root may $action (add --sudo, or run it by sudo)"
fi

if [[ -n $rollback ]]; then
  [[ $action == switch || $action == boot ]] || fail "Cannot $action a rollback" 2
  "${sudo[@]}" nix-env --profile "$profile" --rollback
  "${sudo[@]}" "$profile/bin/switch-to-configuration" "$action"
  exit
fi

if [[ -z $flake ]]; then
  [[ -e /etc/nixos/flake.nix ]] || fail 'Cannot find a flake: name it by --flake, or put one into /etc/nixos'
  flake=/etc/nixos
fi
host=$(uname -n)
if [[ $flake == *'#'* ]]; then
  host=${flake#*#}
  flake=${flake%%#*}
fi
attribute="labConfigurations.\"$host\".config.system.build.toplevel"
build=(nix --extra-experimental-features 'nix-command flakes' build "${flake:-.}#$attribute" "${nix[@]}")

case $action in
  dry-build) exec "${build[@]}" --dry-run ;;
  build) exec "${build[@]}" ;;
esac
toplevel=$("${build[@]}" --no-link --print-out-paths)
case $action in
  switch | boot) "${sudo[@]}" nix-env --profile "$profile" --set "$toplevel" ;;
esac
# in a separate unit, because the switch may end the session that started it
apart=(systemd-run --collect --no-ask-password --pipe --quiet --service-type=exec --wait --unit="nixos-rebuild-$$")
"${sudo[@]}" "${apart[@]}" "$toplevel/bin/switch-to-configuration" "$action"

# shellcheck shell=bash
# Which generation is golden, which one runs. Reads only.

golden=/nix/var/nix/gcroots/golden-generation

echo "booted: $(readlink /run/booted-system || echo none)"
echo "running: $(readlink /run/current-system || echo none)"
if [[ -e $golden ]]; then
  echo "golden: $(readlink -f "$golden")"
else
  echo "golden: none pinned"
fi

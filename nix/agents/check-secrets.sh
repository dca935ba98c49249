#!/bin/sh
# check-secrets FILE...: whether the host's age key opens every sops file, before a switch relies on it.
#
# A sops file has its data key once for each recipient, as an armoured age message; opening one shows whether
# this host is a recipient. Values stay encrypted. SECRETS_KEY is the host's identity file.
set -eu
# a disk that nixos-install is making gets its key with its identity, before its first boot
if [ "${NIXOS_INSTALL_BOOTLOADER-}" = 1 ] && [ ! -e "$SECRETS_KEY" ]; then
  echo "check-secrets: No key in \`$SECRETS_KEY\` yet, so no secret was looked at" >&2
  exit 0
fi
bad=0
for file; do
  opened=
  count=$(grep -c -e '-----BEGIN AGE ENCRYPTED FILE-----' "$file") || count=0
  number=1
  while [ "$number" -le "$count" ]; do
    # the messages are indented in YAML
    if awk -v n="$number" '/-----BEGIN AGE/ { i++ } i == n { sub(/^[ \t]+/, ""); print } /-----END AGE/ && i == n { exit }' "$file" |
      age --decrypt --identity "$SECRETS_KEY" >/dev/null 2>&1; then
      opened=1
      break
    fi
    number=$((number + 1))
  done
  if [ -z "$opened" ]; then
    echo "check-secrets: Cannot open \`$file\` with the key in \`$SECRETS_KEY\`" >&2
    bad=1
  fi
done
exit "$bad"

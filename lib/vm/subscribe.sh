# shellcheck shell=sh
# subscribe <user> <home> <branch> [<place> <repository>]...: clones each repository of the lab to its place, owned
# by the user, unless the place exists. Runs as root, since only root can create a place such as /etc/nixos.
set -eu
cd /
user=$1 home=$2 branch=$3
shift 3
as() { runuser -u "$user" -- env HOME="$home" USER="$user" LC_ALL=C.UTF-8 COLUMNS=80 "$@"; }

# a commit without an author cannot be pushed
as git config --global user.name >/dev/null || {
  as git config --global user.name "$user"
  as git config --global user.email "$user@$(uname -n)"
}
if command -v jj >/dev/null && [ -z "$(as jj config get user.name 2>/dev/null || true)" ]; then
  as jj config set --user user.name "$user" 2>/dev/null
  as jj config set --user user.email "$user@$(uname -n)" 2>/dev/null
fi

while [ $# -gt 0 ]; do
  if [ ! -e "$1" ]; then
    as mkdir -p "${1%/*}" 2>/dev/null || mkdir -p "${1%/*}"
    # cloned beside its place and then renamed, so that an interrupted clone is never mistaken for a whole one
    rm -rf "$1.new"
    install -d -o "$user" -g "$(id -g "$user")" "$1.new"
    if command -v jj >/dev/null; then
      as jj --no-pager git clone --colocate --branch "$branch" "git://git.lab/$2" "$1.new" >&2
    else
      as git clone --quiet "git://git.lab/$2" "$1.new"
    fi
    mv -T "$1.new" "$1"
  fi
  shift 2
done

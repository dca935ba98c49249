#!/bin/sh
# shellcheck disable=SC3013 # dash and busybox know -ef
# Puts this generation's etc files, groups and users in place. Idempotent, and quick when there is
# nothing to do, as it runs at each boot and at each switch. Touches no file that it did not install.
generation=${0%/activate}
state=/var/lib/lab-generation
status=0
[ -d "$state" ] || mkdir -p "$state"

# Users and groups, from built-ins alone when they all exist
while read -r group gid; do
  [ "$gid" != - ] && gid="--gid $gid" || gid=
  found=
  while IFS=: read -r name _; do [ "$name" != "$group" ] || found=1; done </etc/group
  # shellcheck disable=SC2086 # an option and its value, or nothing
  [ -n "$found" ] || groupadd --system $gid "$group" || status=1
done <"$generation/table/groups"
while read -r user uid kind group groups home create shell password; do
  known=
  while IFS=: read -r name _; do [ "$name" != "$user" ] || known=1; done </etc/passwd
  if [ -z "$known" ]; then
    set -- --no-create-home --home-dir "$home" --shell "$shell"
    [ "$uid" = - ] || set -- "$@" --uid "$uid"
    [ "$kind" = normal ] || set -- "$@" --system
    [ "$group" = - ] || set -- "$@" --gid "$group"
    [ "$groups" = - ] || set -- "$@" --groups "$groups"
    # a star lets no password in and, other than an exclamation mark, leaves the account open for keys
    [ "$password" != - ] || password='*'
    useradd "$@" --password "$password" "$user" || status=1
  else
    # a user that exists keeps its password; groups only ever grow, as with mutable users on NixOS
    while IFS=: read -r name _ _ members; do
      case ,$groups, in
        *,"$name",*)
          case ,$members, in *,"$user",*) ;; *) usermod --append --groups "$name" "$user" || status=1 ;; esac
          ;;
      esac
    done </etc/group
    while IFS=: read -r name _ _ _ _ olddir oldshell; do
      [ "$name" = "$user" ] || continue
      [ "$olddir" = "$home" ] && [ "$oldshell" = "$shell" ] ||
        usermod --home "$home" --shell "$shell" "$user" || status=1
    done </etc/passwd
  fi
  if [ "$create" = home ] && [ ! -d "$home" ]; then
    mkdir -p "${home%/*}"
    cp -r /etc/skel "$home" && chown -R "$user:" "$home" && chmod 700 "$home" || status=1
  fi
done <"$generation/table/users"

# What is installed is written down before it is: a power cut leaves no file that nobody owns
{
  while read -r path; do echo "$path"; done <"$generation/table/etc"
  while read -r _ _ _ path; do echo "$path"; done <"$generation/table/copies"
} >"$state/installed.new"
[ -e "$state/installed" ] || : >"$state/installed"
cmp -s "$state/installed" "$state/installed.new" || changed=1
if [ -n "${changed-}" ]; then
  cat "$state/installed" "$state/installed.new" | sort -u >"$state/installed.both"
  mv -T "$state/installed.both" "$state/installed"
fi

# One rename moves all links to this generation at once
if [ ! /etc/static -ef "$generation/etc" ]; then
  ln -sfn "$generation/etc" /etc/.static && mv -T /etc/.static /etc/static || status=1
fi

# A file of somebody else's in the way is kept beside, and comes back when the generation has none
put_aside() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  case $(readlink "$1") in
    /etc/static/*) ;;
    *) [ -e "$1.before-generation" ] || mv -T "$1" "$1.before-generation" || status=1 ;;
  esac
}
parent() {
  case $1 in */*) [ -d "/etc/${1%/*}" ] || mkdir -p "/etc/${1%/*}" ;; esac
}
while read -r path; do
  [ -L "/etc/$path" ] && [ "/etc/$path" -ef "$generation/etc/$path" ] && continue
  parent "$path"
  put_aside "/etc/$path"
  ln -sfn "/etc/static/$path" "/etc/$path" || status=1
done <"$generation/table/etc"
while read -r mode user group path; do
  cmp -s "/etc/$path" "$generation/etc/$path" && continue
  parent "$path"
  [ -e "$state/copied/$path" ] || put_aside "/etc/$path"
  mkdir -p "$state/copied/$path"
  cp "$generation/etc/$path" /etc/.copy && chown "${user#+}:${group#+}" /etc/.copy &&
    chmod "$mode" /etc/.copy && mv -T /etc/.copy "/etc/$path" || status=1
done <"$generation/table/copies"

# What an earlier generation installed and this one does not have
if [ -n "${changed-}" ]; then
  while read -r path; do
    while read -r other; do
      [ "$other" != "$path" ] || continue 2
    done <"$state/installed.new"
    rm -rf "/etc/${path:?}" "$state/copied/$path" || status=1
    [ ! -e "/etc/$path.before-generation" ] || mv -T "/etc/$path.before-generation" "/etc/$path"
    case $path in */*) rmdir --parents --ignore-fail-on-non-empty "/etc/${path%/*}" 2>/dev/null ;; esac
  done <"$state/installed"
  mv -T "$state/installed.new" "$state/installed"
fi

read -r name <"$generation/etc/hostname" && echo "$name" >/proc/sys/kernel/hostname
ln -sfn "$generation" /run/current-system
[ ! -x "$generation/activation-snippets" ] || "$generation/activation-snippets" || status=1
exit $status

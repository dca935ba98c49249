#!/bin/busybox sh
# shellcheck shell=dash disable=SC3013 # busybox knows -ef
# Puts this generation's etc files, groups and users in place. Idempotent, and quick when there is
# nothing to do, as it runs at each boot and at each switch. Touches no file that it did not install.
generation=${0%/activate}
export PATH=/lab/bin:/usr/sbin:/usr/bin
state=/var/lib/lab-generation
status=0
[ -d "$state" ] || mkdir -p "$state"

# Users and groups are added by hand: no program that could do it starts within the time that all of
# this takes under emulation. Those that exist keep their ids and passwords, and groups only ever grow,
# as with mutable users on NixOS.
has() { # <file> <name>
  while IFS=: read -r name _; do [ "$name" != "$2" ] || return 0; done <"/etc/$1"
  return 1
}
free_id() { # <file> <from> <to>; sets id
  id=$2
  while :; do
    while IFS=: read -r _ _ other _; do
      if [ "$other" = "$id" ]; then
        id=$((id + 1))
        [ "$id" -le "$3" ] || return 1
        continue 2
      fi
    done <"/etc/$1"
    return 0
  done
}
while read -r group gid; do
  ! has group "$group" || continue
  [ "$gid" != - ] || { free_id group 400 899 && gid=$id; } || { status=1; continue; }
  echo "$group:x:$gid:" >>/etc/group
  echo "$group:!::" >>/etc/gshadow
done <"$generation/table/groups"
while read -r user uid kind group groups home create shell password; do
  gid=65534
  while IFS=: read -r name _ number _; do [ "$name" != "$group" ] || gid=$number; done </etc/group
  if ! has passwd "$user"; then
    if [ "$uid" = - ]; then
      if [ "$kind" = normal ]; then free_id passwd 1000 29999; else free_id passwd 400 899; fi || { status=1; continue; }
      uid=$id
    fi
    # a star lets no password in and, other than an exclamation mark, leaves the account open for keys
    [ "$password" != - ] || password='*'
    echo "$user:x:$uid:$gid::$home:$shell" >>/etc/passwd
    echo "$user:$password:1::::::" >>/etc/shadow
  else
    while IFS=: read -r name _ _ _ _ old_home old_shell; do
      [ "$name" = "$user" ] || continue
      if [ "$old_home:$old_shell" != "$home:$shell" ]; then
        usermod --home "$home" --shell "$shell" "$user" || status=1
      fi
    done </etc/passwd
  fi
  missing=
  while IFS=: read -r name _ _ members; do
    case ,$groups, in
      *,"$name",*) case ,$members, in *,"$user",*) ;; *) missing="$missing $name" ;; esac ;;
    esac
  done </etc/group
  for name in $missing; do
    for file in group gshadow; do
      # the copy is for owner and mode
      { cp -p "/etc/$file" "/etc/$file.new" &&
        sed "/^$name:/{s/\$/,$user/;s/:,/:/}" "/etc/$file" >"/etc/$file.new" &&
        mv "/etc/$file.new" "/etc/$file"; } || status=1
    done
  done
  if [ "$create" = home ] && [ ! -d "$home" ]; then
    mkdir -p "${home%/*}"
    { cp -r /etc/skel "$home" && chown -R "$user:$gid" "$home" && chmod 700 "$home"; } || status=1
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
# one process for all links that a directory lacks
link_all() {
  [ $# -eq 0 ] || ln -s "$@" "/etc/$in" || status=1
}
set --
in=
while read -r path; do
  [ -L "/etc/$path" ] && [ "/etc/$path" -ef "$generation/etc/$path" ] && continue
  parent "$path"
  put_aside "/etc/$path"
  [ ! -L "/etc/$path" ] || rm "/etc/$path"
  case $path in */*) dir=${path%/*} ;; *) dir= ;; esac
  if [ "$dir" != "$in" ]; then
    link_all "$@"
    set --
    in=$dir
  fi
  set -- "$@" "/etc/static/$path"
done <"$generation/table/etc"
link_all "$@"
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
    case $path in */*) rmdir -p --ignore-fail-on-non-empty "/etc/${path%/*}" 2>/dev/null ;; esac
  done <"$state/installed"
  mv -T "$state/installed.new" "$state/installed"
fi

read -r name <"$generation/etc/hostname" && echo "$name" >/proc/sys/kernel/hostname
ln -sfn "$generation" /run/current-system
[ ! -x "$generation/activation-snippets" ] || "$generation/activation-snippets" || status=1
exit $status

#!/bin/busybox sh
# shellcheck shell=dash disable=SC3013 # busybox knows -ef
# Installs this generation's etc files, groups and users. Idempotent, and quick when there is nothing to
# do, because it runs at every boot and every switch. Touches no file that it did not install.
generation=${0%/activate}
export PATH=/lab/bin:/usr/sbin:/usr/bin
state=/var/lib/lab-generation
status=0
[ -d "$state" ] || mkdir -p "$state"
# a disk made from an older image does not have it
[ -d /lab/packages ] || "$generation/programs" / || status=1

# Users and groups are edited by the shell itself: under emulation, starting useradd alone takes longer than
# all of this. Existing ones keep their ids and passwords, and groups only ever gain members, as with mutable
# users on NixOS. All four files are rewritten and renamed once they are on the disk: after a power cut, text
# that was appended to a file may read as zeros.
edited=
edit() {
  [ -z "$edited" ] || return 0
  for file in passwd shadow group gshadow; do cp -p /etc/$file /etc/$file.new || status=1; done
  edited=.new
}
has() { # <file> <name>
  while IFS=: read -r name _; do [ "$name" != "$2" ] || return 0; done <"/etc/$1$edited"
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
    done <"/etc/$1$edited"
    return 0
  done
}
while read -r group gid; do
  ! has group "$group" || continue
  [ "$gid" != - ] || { free_id group 400 899 && gid=$id; } || { status=1; continue; }
  edit
  echo "$group:x:$gid:" >>/etc/group.new
  echo "$group:!::" >>/etc/gshadow.new
done <"$generation/table/groups"
homes=
while read -r user uid kind group groups home create shell password; do
  gid=65534
  while IFS=: read -r name _ number _; do [ "$name" != "$group" ] || gid=$number; done <"/etc/group$edited"
  if ! has passwd "$user"; then
    if [ "$uid" = - ]; then
      if [ "$kind" = normal ]; then free_id passwd 1000 29999; else free_id passwd 400 899; fi || { status=1; continue; }
      uid=$id
    fi
    edit
    # `*` allows no password but, unlike `!`, still allows a login by key
    [ "$password" != - ] || password='*'
    echo "$user:x:$uid:$gid::$home:$shell" >>/etc/passwd.new
    echo "$user:$password:1::::::" >>/etc/shadow.new
  fi
  while IFS=: read -r name _ uid _ _ old_home old_shell; do
    [ "$name" = "$user" ] || continue
    if [ "$old_home:$old_shell" != "$home:$shell" ]; then
      edit
      sed -i "s|^\\($user:[^:]*:[^:]*:[^:]*:[^:]*\\):.*|\\1:$home:$shell|" /etc/passwd.new || status=1
    fi
    [ "$create" != home ] || [ -d "$home" ] || homes="$homes $uid:$gid:$home"
  done <"/etc/passwd$edited"
  missing=
  while IFS=: read -r name _ _ members; do
    case ,$groups, in
      *,"$name",*) case ,$members, in *,"$user",*) ;; *) missing="$missing $name" ;; esac ;;
    esac
  done <"/etc/group$edited"
  for name in $missing; do
    edit
    sed -i "/^$name:/{s/\$/,$user/;s/:,/:/}" /etc/group.new /etc/gshadow.new || status=1
  done
done <"$generation/table/users"
if [ -n "$edited" ]; then
  sync
  for file in group gshadow shadow passwd; do mv /etc/$file.new /etc/$file || status=1; done
fi
for entry in $homes; do
  home=${entry#*:*:}
  [ -d "${home%/*}" ] || mkdir -p "${home%/*}"
  rm -rf "$home.new"
  { cp -r /etc/skel "$home.new" && chown -R "${entry%:"$home"}" "$home.new" && chmod 700 "$home.new" &&
    sync && mv "$home.new" "$home"; } || status=1
done

# Files are recorded before they are installed, so that a power cut leaves no unrecorded file
{
  while read -r path; do echo "$path"; done <"$generation/table/etc"
  while read -r _ _ _ path; do echo "$path"; done <"$generation/table/copies"
} >"$state/installed.new"
[ -e "$state/installed" ] || : >"$state/installed"
cmp -s "$state/installed" "$state/installed.new" || changed=1
if [ -n "${changed-}" ]; then
  cat "$state/installed" "$state/installed.new" | sort -u >"$state/installed.both"
  sync
  mv -T "$state/installed.both" "$state/installed"
fi

# One rename moves all links to this generation at once
if [ ! /etc/static -ef "$generation/etc" ]; then
  ln -sfn "$generation/etc" /etc/.static && mv -T /etc/.static /etc/static || status=1
fi

# A foreign file in the way is renamed, and restored once a generation no longer has a file there
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
# creates all links that a directory lacks in one process
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
    chmod "$mode" /etc/.copy && sync && mv -T /etc/.copy "/etc/$path" || status=1
done <"$generation/table/copies"

# Remove what an earlier generation installed and this one does not have
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

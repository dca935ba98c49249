#!/bin/sh
# switch-to-configuration <switch|boot|test|dry-activate>, as on NixOS:
#   switch        make this generation the boot default, and run it now
#   boot          make it the boot default only
#   test          run it now, and leave the boot default alone
#   dry-activate  say what a switch would do, and change nothing
# Exits with 4 when units failed, which are named; with 1 when nothing was changed.
generation=$(cd -P "${0%/*}/.." && pwd -P)
action=${1-}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin LC_ALL=C.UTF-8
case $action in
  switch | boot | test | dry-activate) ;;
  *) echo "Usage: ${0##*/} switch|boot|test|dry-activate" >&2; exit 1 ;;
esac
say() { echo "$1" >&2; }
[ "$(id -u)" = 0 ] || { say 'Cannot switch: only root may'; exit 1; }

mkdir -p /run/nixos
exec 9>/run/nixos/switch-to-configuration.lock
flock --nonblock 9 || { say 'Cannot switch: another switch-to-configuration is at work'; exit 1; }

if [ "$action" != dry-activate ]; then
  [ ! -x "$generation/pre-switch-checks" ] || "$generation/pre-switch-checks" "$generation" "$action" || exit 1
fi
case $action in
  # with no room it stops here, before anything has changed
  switch | boot) "$generation/bin/install-boot-entries" || exit 1 ;;
esac
[ "$action" != boot ] || exit 0

# The two tables of units and what runs now -> `<verb> <unit>` for all that is to be done
old=/etc/static/..
[ -e "$old/table/units" ] || old=$generation
plan=$(
  systemctl list-units --all --plain --no-legend --no-pager | awk -v old="$old/table/units" -v new="$generation/table/units" '
    function file(unit) {  # its own name, or for an instance that of its template
      if (unit in now || unit in before) return unit
      at = index(unit, "@"); dot = match(unit, /\.[a-z]+$/)
      return at ? substr(unit, 1, at) substr(unit, dot) : unit
    }
    BEGIN {
      while ((getline line < old) > 0) { split(line, f, " "); before[f[1]] = f[2]; trigger[f[1]] = f[3]; own[f[1]] = f[5] == "own" }
      while ((getline line < new) > 0) { split(line, f, " "); now[f[1]] = f[2]; reload[f[1]] = f[3]; policy[f[1]] = f[4] }
    }
    { sub(/^[*●] /, ""); unit = $1; state = $3 }
    state == "active" || state == "activating" || state == "reloading" {
      name = file(unit)
      if (unit ~ /\.target$/ && own[name] && name in now) print "target", unit
      if (!(name in now)) {
        if (!(name in before)) next
        print own[name] ? "stop" : "restart", unit
      }
      else if (now[name] == "masked") print "stop", unit
      else if (before[name] != now[name]) {
        verb = policy[name]
        if (verb == "stop-start" && sub(/\.service$/, ".socket", name) && name in now) { print "stop-start", unit; print "restart", name }
        else print verb, unit
      }
      else if (trigger[name] != reload[name]) print "reload", unit
    }
  '
)
units() { echo "$plan" | awk -v verb="$1" '$1 == verb && !seen[$2]++ { print $2 }'; }
announce() { [ -z "$2" ] || say "$1: $(echo "$2" | awk '{ printf "%s%s", sep, $1; sep = ", " }')"; }
stop=$(units stop) swap=$(units stop-start) restart=$(units restart) reload=$(units reload)
skip=$(units none)
# starting a target that is up starts what it wants and has not got: all that is new or was stopped
targets="multi-user.target sockets.target timers.target $(units target)"

if [ "$action" = dry-activate ]; then
  announce 'would stop the following units' "$stop${swap:+${stop:+
}$swap}"
  announce 'would NOT restart the following changed units' "$skip"
  [ "$generation" = "$(readlink -f /run/current-system)" ] || say 'would activate the configuration'
  announce 'would reload the following units' "$reload"
  announce 'would restart the following units' "$restart"
  announce 'would start the following units' "$swap"
  "$generation/bin/install-boot-entries" --check
  exit
fi

# A sudden end of the session that started it must not leave a switch half done
trap '' HUP PIPE

status=0
if [ -n "$stop$swap" ]; then
  announce 'stopping the following units' "$stop${swap:+${stop:+
}$swap}"
  # shellcheck disable=SC2086 # unit names hold no blanks
  systemctl stop --no-ask-password -- $stop $swap || status=4
fi
announce 'NOT restarting the following changed units' "$skip"
say 'activating the configuration...'
before=$(readlink -f /etc/static)
"$generation/activate" || status=2
systemctl daemon-reload || status=3
[ -n "$(systemctl list-jobs --no-legend 2>/dev/null)" ] || systemctl reset-failed
differs() { ! cmp -s "$before/$1" "$generation/etc/$1"; }
! differs sysctl.d/60-nixos.conf || /usr/lib/systemd/systemd-sysctl || status=4
! differs modules-load.d/nixos.conf || /usr/lib/systemd/systemd-modules-load || status=4
! differs tmpfiles.d/00-nixos.conf || systemd-tmpfiles --create --remove /etc/tmpfiles.d/00-nixos.conf || status=4
announce 'reloading the following units' "$reload"
announce 'restarting the following units' "$restart"
announce 'starting the following units' "$swap"
# shellcheck disable=SC2086
{
  [ -z "$reload" ] || systemctl reload --no-ask-password -- $reload || status=4
  [ -z "$restart" ] || systemctl restart --no-ask-password -- $restart || status=4
  systemctl start --no-ask-password -- $swap $targets || status=4
}
# a service that systemd keeps restarting has failed too
failed=$(systemctl list-units --all --plain --no-legend --no-pager |
  awk '{ sub(/^[*●] /, "") } $3 == "failed" || $4 == "auto-restart" { print $1 }')
if [ -n "$failed" ]; then
  say "warning: the following units failed: $(echo "$failed" | awk '{ printf "%s%s", sep, $1; sep = ", " }')"
  # shellcheck disable=SC2086
  systemctl status --no-pager --lines 5 -- $failed >&2
  status=4
fi
exit $status

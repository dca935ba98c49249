#!/bin/busybox sh
# shellcheck shell=dash
# switch-to-configuration <switch|boot|test|dry-activate>, as on NixOS:
#   switch        make this generation the boot default, and activate it now
#   boot          make it the boot default only
#   test          activate it now, and leave the boot default alone
#   dry-activate  say what a switch would do, and change nothing
# Exits with 4 when units failed, which are named; with 1 when nothing was changed; and with 11 when nothing was
# changed because another process holds the lock.
# shellcheck disable=SC2086 # lists of units, whose names hold no blanks
generation=$(cd -P "${0%/*}/.." && pwd -P)
action=${1-}
export PATH=/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin LC_ALL=C.UTF-8
case $action in
  switch | boot | test | dry-activate) ;;
  *) echo "Usage: ${0##*/} switch|boot|test|dry-activate" >&2; exit 1 ;;
esac
say() { echo "$1" >&2; }
[ "$(id -u)" = 0 ] || { say 'Cannot switch: only root may'; exit 1; }

mkdir -p /run/nixos
exec 9>/run/nixos/switch-to-configuration.lock
flock --nonblock 9 || { say 'Cannot switch: another switch-to-configuration is at work'; exit 11; }

if [ "$action" != dry-activate ]; then
  [ ! -x "$generation/pre-switch-checks" ] || "$generation/pre-switch-checks" "$generation" "$action" || exit 1
fi
case $action in
  # if space is lacking the switch stops here, before anything has changed
  switch | boot) "$generation/bin/install-boot-entries" || exit 1 ;;
esac
[ "$action" != boot ] || exit 0

# The old and new tables of units and the running units -> a line `<verb> <unit>` for each thing to do.
# systemctl is called as rarely as possible: each call takes a third of a second under emulation.
old=/etc/static/..
[ -e "$old/table/units" ] || old=$generation
running=$(systemctl list-units --all --plain --no-legend --no-pager)
plan=$(
  echo "$running" | awk -v old="$old/table/units" -v new="$generation/table/units" '
    function file(unit) {  # its own name, or for an instance that of its template
      if (unit in now || unit in before) return unit
      at = index(unit, "@"); dot = match(unit, /\.[a-z]+$/)
      return at ? substr(unit, 1, at) substr(unit, dot) : unit
    }
    BEGIN {
      while ((getline line < old) > 0) { split(line, f, " "); before[f[1]] = f[2]; trigger[f[1]] = f[3]; own[f[1]] = f[5] != "dropin"; stays[f[1]] = f[5] == "stays" }
      while ((getline line < new) > 0) { split(line, f, " "); now[f[1]] = f[2]; reload[f[1]] = f[3]; policy[f[1]] = f[4] }
    }
    $3 == "failed" { print "failed", $1 }
    $3 == "active" || $3 == "activating" || $3 == "reloading" {
      unit = $1
      name = file(unit)
      if (unit ~ /\.target$/ && own[name] && name in now) print "target", unit
      if (!(name in now)) {
        if (!(name in before) || stays[name]) next
        print own[name] ? "stop" : "restart", unit
      }
      else if (now[name] == "masked") print "stop", unit
      else if (before[name] != now[name]) {
        verb = policy[name]
        # a listening socket must not start the old service again in between
        if (verb == "stop-start" && sub(/\.service$/, ".socket", name) && name in now) { print "stop-start", unit; print "restart", name }
        else print verb, unit
      }
      else if (trigger[name] != reload[name]) print "reload", unit
    }
  '
)
announce() { # <what is done> <unit...>
  text=$1: sep=' '
  shift
  [ $# -gt 0 ] || return 0
  for unit; do
    text=$text$sep$unit
    sep=', '
  done
  say "$text"
}
stop='' swap='' restart='' reload='' skip='' failed=''
# starting an active target starts every wanted unit that is not running: all that are new or were stopped
targets='multi-user.target sockets.target timers.target'
while read -r verb unit; do
  case $verb in
    stop) stop="$stop $unit" ;;
    stop-start) swap="$swap $unit" ;;
    restart) restart="$restart $unit" ;;
    reload) reload="$reload $unit" ;;
    none) skip="$skip $unit" ;;
    failed) failed="$failed $unit" ;;
    target) targets="$targets $unit" ;;
  esac
done <<END
$plan
END

if [ "$action" = dry-activate ]; then
  announce 'would stop the following units' $stop $swap
  announce 'would NOT restart the following changed units' $skip
  [ "$generation" = "$(readlink -f /run/current-system)" ] || say 'would activate the configuration'
  announce 'would reload the following units' $reload
  announce 'would restart the following units' $restart
  announce 'would start the following units' $swap
  "$generation/bin/install-boot-entries" --check
  exit
fi

# The end of the session that started this must not interrupt the switch
trap '' HUP PIPE

ctl() { systemctl "$1" --no-ask-password -- $2 || status=4; }
status=0
announce 'stopping the following units' $stop $swap
[ -z "$stop$swap" ] || ctl stop "$stop $swap"
announce 'NOT restarting the following changed units' $skip
say 'activating the configuration...'
before=$(readlink -f /etc/static)
"$generation/activate" || status=2
differs() {
  [ -e "$before/../$1" ] || [ -e "$generation/$1" ] || return 1
  ! cmp -s "$before/../$1" "$generation/$1"
}
! differs table/systemd || systemctl daemon-reload || status=3
# units that failed earlier, or while being stopped, are no failure of this switch; NixOS resets them here, too
[ -z "$failed$stop$swap" ] || systemctl reset-failed
! differs etc/sysctl.d/60-nixos.conf || /usr/lib/systemd/systemd-sysctl || status=4
! differs etc/modules-load.d/nixos.conf || /usr/lib/systemd/systemd-modules-load || status=4
! differs etc/tmpfiles.d/00-nixos.conf || systemd-tmpfiles --create || status=4
announce 'reloading the following units' $reload
[ -z "$reload" ] || ctl reload "$reload"
announce 'restarting the following units' $restart
[ -z "$restart" ] || ctl restart "$restart"
announce 'starting the following units' $swap
ctl start "$swap $targets"

# a service that systemd keeps restarting counts as failed too
failed=$(systemctl list-units --all --plain --no-legend --no-pager |
  awk '$3 == "failed" || $4 == "auto-restart" { printf "%s%s", sep, $1; sep = " " }')
if [ -n "$failed" ]; then
  announce 'warning: the following units failed' $failed
  systemctl status --no-pager --lines 5 -- $failed >&2
  status=4
fi
exit $status

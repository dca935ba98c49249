#!/bin/sh
# The generation's first process, started by the first stage with the root file system mounted: puts
# this generation's files in place and becomes systemd. Built-ins wherever possible; a process costs
# tens of milliseconds in an emulated guest.
generation=${0%/init}
export PATH=/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin LANG=C.UTF-8

mount -t tmpfs -o mode=0755,nosuid,nodev,size=20% run /run
ln -s "$generation" /run/booted-system
mount -t vfat -o umask=0077,noatime LABEL=ESP /boot || echo 'init: /boot cannot be mounted' >&2

# A hang from here on is the watchdog's, until systemd takes it over
while read -r line; do
  case $line in
    RuntimeWatchdogSec=0 | RuntimeWatchdogSec=off) break ;;
    RuntimeWatchdogSec=*) [ ! -c /dev/watchdog ] || : >/dev/watchdog ;;
  esac
done <"$generation/etc/systemd/system.conf"

# lan: the address follows from the MAC, 52:54:00:03:xx:xx
for nic in /sys/class/net/*; do
  read -r mac <"$nic/address"
  case $mac in
    52:54:00:03:*)
      mkdir -p /run/systemd/network
      printf '[Match]\nName=lan\n[Network]\nAddress=10.0.4.%d/24\nLinkLocalAddressing=no\n' \
        "0x${mac##*:}" >/run/systemd/network/10-lan.network
      ;;
  esac
done

"$generation/activate" || echo 'init: activation was not complete' >&2
exec /usr/lib/systemd/systemd "$@"

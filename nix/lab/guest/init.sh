#!/bin/busybox sh
# shellcheck shell=dash
# The generation's first process, started by the first stage once the root file system is mounted: installs
# this generation's files and becomes systemd. Uses busybox because under emulation a dynamically linked
# program takes 50 ms to start, and busybox 5 ms.
generation=${0%/init}
export PATH=/lab/bin:/usr/sbin:/usr/bin LANG=C.UTF-8

mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755,nosuid,nodev,size=20% run /run
ln -s "$generation" /run/booted-system
mount -t vfat -o umask=0077,noatime LABEL=ESP /boot || echo 'init: /boot cannot be mounted' >&2

# The kernel booted with one CPU (see system.nix): bring up the others
for cpu in /sys/devices/system/cpu/cpu[0-9]*/online; do echo 1 >"$cpu"; done

# The first stage has started the watchdog: turn it off unless systemd is set to take it over
watchdog=off
while read -r line; do
  case $line in RuntimeWatchdogSec=*) watchdog=${line#*=} ;; esac
done <"$generation/etc/systemd/system.conf"
case $watchdog in 0 | off) [ ! -c /dev/watchdog ] || printf V >/dev/watchdog ;; esac

# QEMU's router advertisements would give a default IPv6 route through mgmt
echo 0 >/proc/sys/net/ipv6/conf/default/accept_ra
# The NICs, identified by MAC. mgmt is the way in and never a route out.
for nic in /sys/class/net/*; do
  read -r mac <"$nic/address"
  case $mac in
    52:54:00:01:*) name=mgmt address=10.0.2.15/24 ;;
    52:54:00:02:*) name=uplink address=10.0.3.15/24 ;;
    52:54:00:03:*) name=lan address=10.0.4.$((0x${mac##*:}))/24 ;;
    *) continue ;;
  esac
  ip link set "${nic##*/}" name "$name" && ip link set "$name" up && ip address add "$address" dev "$name"
  [ "$name" != uplink ] || ip route add default via 10.0.3.2
done
mkdir -p /run/systemd/journal /run/sshd
# tells journald that it may write to the disk from the first line on
: >/run/systemd/journal/flushed

"$generation/activate" || echo 'init: activation was not complete' >&2
unset PATH
# hides libbpf from systemd (see build.sh); systemd does not pass this variable on to its services
export LD_LIBRARY_PATH=/lab/no-bpf
exec /usr/lib/systemd/systemd "$@"

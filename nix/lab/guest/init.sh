#!/bin/busybox sh
# shellcheck shell=dash
# The generation's first process, started by the first stage with the root file system mounted: puts
# this generation's files in place and becomes systemd. In busybox, as under emulation a program that
# is linked dynamically takes 50 ms to start, and busybox 5.
generation=${0%/init}
export PATH=/lab/bin:/usr/sbin:/usr/bin LANG=C.UTF-8

mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755,nosuid,nodev,size=20% run /run
ln -s "$generation" /run/booted-system
mount -t vfat -o umask=0077,noatime LABEL=ESP /boot || echo 'init: /boot cannot be mounted' >&2

# The kernel came up with one CPU (see system.nix): here are the others
for cpu in /sys/devices/system/cpu/cpu[0-9]*/online; do echo 1 >"$cpu"; done

# The first stage has started the watchdog: systemd takes it over where it is told to
watchdog=off
while read -r line; do
  case $line in RuntimeWatchdogSec=*) watchdog=${line#*=} ;; esac
done <"$generation/etc/systemd/system.conf"
case $watchdog in 0 | off) [ ! -c /dev/watchdog ] || printf V >/dev/watchdog ;; esac

# What QEMU's network says of IPv6 would be a route out through mgmt
echo 0 >/proc/sys/net/ipv6/conf/default/accept_ra
# The NICs, told apart by MAC. mgmt is the way in and never a route out.
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
# the journal may be written to the disk from its first line on
: >/run/systemd/journal/flushed

"$generation/activate" || echo 'init: activation was not complete' >&2
unset PATH
# systemd finds no libbpf (see build.sh), and gives none of this to what it starts
export LD_LIBRARY_PATH=/lab/no-bpf
exec /usr/lib/systemd/systemd "$@"

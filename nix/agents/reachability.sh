# shellcheck shell=bash
# Whether a user can log in to this host: it gets sshd's banner, over an address that the host has on its own network.
# The check acts as a neighbour would, by packets that come in on the interface with that address. A connection
# from the host to itself would go over `lo`, which every firewall lets through.
#
#   another network namespace        the host
#   reach-out  ------ veth ------  reach-in  -- tc: redirect --> <interface> --> firewall --> sshd
#                                      ^------------- ip rule: answers ------------------------'
#
# Nothing of this leaves the host, and the interface and its routes stay as they are. Settings:
#   REACH_PORT        port of sshd; empty: the host need not be reached
#   REACH_INTERFACES  names, one of which it must be reached over; empty: any network card, or any interface with
#                     the default route
#   REACH_TIMEOUT     seconds to wait for an address, and for sshd to answer on it
#   REACH_COMMAND     shell command to run instead; it succeeds when the host can be reached

# Runs in the namespace, with $1 the address, $2 its port, $3 the neighbour's address and $4 the neighbour's port:
# prints `there`, waits for its end of the cable, and prints the banner. The line that it sends makes sshd
# hang up, and appears in sshd's log.
# shellcheck disable=SC2016 # a script of its own
reach_neighbour='
echo there
read -r _ || exit
whole=/32
[[ $1 != *:* ]] || whole="/128 nodad"
ip -batch - <<END || exit
link set lo up
link set reach-out up
address add $3$whole dev reach-out
route add $1 dev reach-out
neighbour replace $1 lladdr 02:00:00:00:22:01 dev reach-out nud permanent
END
echo "$4 $4" >/proc/sys/net/ipv4/ip_local_port_range
exec 3<>"/dev/tcp/$1/$2" || exit
IFS= read -r -t 10 banner <&3
echo "$banner"
printf "a check whether this host can be reached\r\n" >&3
cat <&3 >/dev/null
'

# Seconds since the boot for which the machine was awake, in REPLY: while a check waits, the clock may be set, and the
# lid may be closed. The kernel's list of timers has that value, the same as systemd's; a container may hide it.
since_boot() {
  if { { read -r _ && read -r _ && read -r _ _ REPLY _; } </proc/timer_list; } 2>/dev/null && [[ $REPLY =~ ^[0-9]{10,}$ ]]; then
    REPLY=${REPLY%?????????}
  else
    IFS=. read -r REPLY _ </proc/uptime
  fi
}

# Interfaces and their addresses, as `<interface> <address>/<length>` lines: only those that are up, have a link, and
# match the settings.
reach_addresses() {
  local lines routes nic address carrier
  lines=$(ip -oneline address show up scope global) && routes=$(ip route show default; ip -6 route show default) || return
  while read -r _ nic _ address _; do
    nic=${nic%%@*}
    if [[ -n $REACH_INTERFACES ]]; then
      reach_is_named "$nic" || continue
    else
      reach_is_card "/sys/class/net/$nic" || [[ "$routes " == *" dev $nic "* ]] || continue
    fi
    # an interface that is down has no readable carrier file
    { read -r carrier <"/sys/class/net/$nic/carrier"; } 2>/dev/null || continue
    if [[ $carrier == 1 ]]; then echo "$nic $address"; fi
  done < <(grep -v -E ' (tentative|dadfailed|deprecated)' <<<"$lines")
}
# Whether REACH_INTERFACES names it; iptables has `+` and nftables `*` for any end of a name
reach_is_named() { # reach_is_named <interface>
  local names name
  read -r -a names <<<"$REACH_INTERFACES"
  for name in "${names[@]}"; do
    # shellcheck disable=SC2053 # a pattern
    if [[ $1 == ${name/%+/*} ]]; then return 0; fi
  done
  return 1
}
# Whether it is a network card: itself, or, as a bridge or a VLAN, by what is below it
reach_is_card() { # reach_is_card <directory in /sys>
  local below
  [[ ! -e $1/device ]] || return 0
  for below in "$1"/lower_*; do
    if [[ -e $below ]] && reach_is_card "$below"; then return 0; fi
  done
  return 1
}

# An address that a neighbour of this one could have: in the same network, not used here, and not the router's.
reach_next_to() { # reach_next_to <address> <length>
  local a b c d number mask other
  if [[ $1 == *:* ]]; then
    a=${1##*:}
    printf '%s:%x\n' "${1%:*}" $((0x${a:-0} ^ 2))
    return
  fi
  IFS=. read -r a b c d <<<"$1"
  number=$(((a << 24) + (b << 16) + (c << 8) + d)) mask=$((2 ** (32 - $2) - 1))
  for _ in 1 2 3 4 5 6 7 8 9; do
    other=$((number ^ 1 + RANDOM % (mask < 2 ? 1 : mask < 127 ? mask : 127)))
    # the network's own address, and its broadcast
    if ((mask > 1 && ((other & mask) == 0 || (other & mask) == mask))); then continue; fi
    printf -v other '%d.%d.%d.%d' $((other >> 24)) $((other >> 16 & 255)) $((other >> 8 & 255)) $((other & 255))
    if [[ "$(ip -oneline address; ip route show default) " == *[\ ]"$other"[/\ ]* ]]; then continue; fi
    echo "$other"
    return
  done
  return 1
}

# Whether the kernel drops packets whose answer would leave elsewhere (only IPv4 has such a filter)
reach_strict() { # reach_strict <interface>
  local all own
  read -r all </proc/sys/net/ipv4/conf/all/rp_filter && read -r own <"/proc/sys/net/ipv4/conf/$1/rp_filter" &&
    (((all > own ? all : own) == 1))
}

# Prints the banner over one address; where that fails, prints what went wrong instead.
reach_ask() { # reach_ask <interface> <address>/<length>
  local address=${2%/*} family=-4 neighbour port=$((RANDOM % 20000 + 40000)) said='' rule route from to pid
  if [[ $address == *:* ]]; then family=-6; fi
  if ! neighbour=$(reach_next_to "$address" "${2#*/}"); then
    echo "$2 has no free address from which to check it"
    return 1
  fi
  coproc REACH { exec unshare --net bash -c "$reach_neighbour" reach "$address" "$REACH_PORT" "$neighbour" "$port" 2>&1; }
  # bash unsets these variables as soon as the process has ended
  from=${REACH[0]} to=${REACH[1]} pid=$REACH_PID
  route="route add $neighbour table 22022 dev reach-in"
  if [[ $family == -4 ]] && reach_strict "$1"; then
    # One path in 256 uses the interface, which is enough for that filter. Newer kernels prefer a path whose
    # interface has the address, so both have the same
    route="address add $address/32 dev reach-in
route add $neighbour table 22022 nexthop dev reach-in weight 255 nexthop dev $1 weight 1"
  fi
  # for this one connection only; the protocol by number, as a host may have no names of protocols
  rule=(priority 22 ipproto 6 sport "$REACH_PORT" dport "$port" to "$neighbour" table 22022)
  if IFS= read -r -t 20 said <&"$from" && [[ $said == there ]] && said=$(
    {
      ip "$family" -batch - <<END &&
link add reach-in address 02:00:00:00:22:01 type veth peer name reach-out address 02:00:00:00:22:02 netns $pid
link set reach-in up
$route
neighbour replace $neighbour lladdr 02:00:00:00:22:02 dev reach-in nud permanent
rule add ${rule[*]}
END
        tc -batch - <<END
qdisc add dev reach-in ingress
filter add dev reach-in parent ffff: protocol all u32 match u32 0 0 action mirred ingress redirect dev $1
END
    } 2>&1
  ); then
    echo >&"$to"
    IFS= read -r -t 10 said <&"$from" || said='no banner within 10 s'
    # gives it time to hang up
    if [[ $said == SSH-* ]]; then IFS= read -r -t 5 -d '' <&"$from" || true; fi
    [[ $said == SSH-* ]] || said="sshd does not answer at $address, port $REACH_PORT, over $1 (${said##*: })"
  else
    said="the check over $1 could not be set up: ${said%%$'\n'*}"
  fi
  said=${said%$'\r'}
  {
    ip "$family" rule del "${rule[@]}"
    # the namespace ends with its process, and the veth pair with the namespace
    kill -KILL "$pid"
    ip link del reach-in
    wait "$pid"
  } 2>/dev/null || true
  if [[ $said != SSH-* ]]; then
    echo "$said"
    return 1
  fi
  echo "$said over $1 at $address"
}

# Prints what it found; fails with `unreachable` set to the reason.
reachable() {
  local deadline lines nic address said code
  unreachable=''
  [[ -n ${REACH_PORT-}${REACH_COMMAND-} ]] || return 0
  since_boot
  deadline=$((REPLY + REACH_TIMEOUT))
  while :; do
    if [[ -n $REACH_COMMAND ]]; then
      code=0
      timeout --kill-after=5 "$REACH_TIMEOUT" bash -c "$REACH_COMMAND" </dev/null || code=$?
      if [[ $code == 0 ]]; then return 0; fi
      unreachable="\`$REACH_COMMAND\` exited with $code"
    elif ! lines=$(reach_addresses); then
      unreachable='its addresses cannot be listed'
    elif [[ -z $lines ]]; then
      unreachable="no address on ${REACH_INTERFACES:-any network card} that is up and has a link"
    else
      unreachable=''
      while read -r nic address; do
        # one at a time: all checks use the same names and the same table
        if said=$(umask 077 && exec 8>/run/reachability.lock && flock --wait 60 8 && reach_ask "$nic" "$address"); then
          echo "reached $said"
          unreachable=''
          return 0
        fi
        unreachable+="${unreachable:+, }${said:-another check holds /run/reachability.lock}"
      done <<<"$lines"
    fi
    since_boot
    if [[ $REPLY -ge $deadline ]]; then break; fi
    sleep 1
  done
  unreachable="this host cannot be reached: $unreachable"
  return 1
}

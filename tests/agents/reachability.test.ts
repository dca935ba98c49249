/**
 * The reachability check, run in a network namespace that stands for the host: a cable with nothing at its other
 * end, and the guest's own sshd, ip and tc.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { useRoot, type ScratchRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => {
  root = made
  const agent = readFileSync(join(project, 'nix/agents/reachability.sh'), 'utf8')
  writeFileSync(join(root.dir, 'root/reachability.sh'), agent)
})

/** Bash that makes a host with sshd and one NIC; `card` makes another NIC. */
const host = `mount -t sysfs sys /sys
card() { # card <name> <address>
  ip link add "$1" type veth peer name "wire-$1"
  ip link set "wire-$1" up
  ip link set "$1" up
  ip address add "$2" dev "$1" nodad 2>/dev/null
}
# Acts like a firewall that admits SSH only on other interfaces: drops by incoming interface
drop() { # drop <interface>
  ip rule show priority 1 | grep -q . || { ip rule add priority 1 lookup local; ip rule del priority 0; }
  ip rule add priority 0 iif "$1" ipproto 6 dport 22 blackhole
}
ip link set lo up
card eth0 10.9.0.15/24
mkdir -p /run/sshd
[ -e /root/key ] || ssh-keygen -q -t ed25519 -N '' -f /root/key
rm -f /run/sshd.pid
/usr/sbin/sshd -f /dev/null -o PidFile=/run/sshd.pid -h /root/key
until [ -s /run/sshd.pid ]; do sleep 0.05; done
. /root/reachability.sh
`

/** The check's output after `script` has changed the host; the last line is `well` or the reason. */
async function asked(script: string, settings: Record<string, string> = {}): Promise<string> {
  const env = {
    ...{ REACH_PORT: '22', REACH_INTERFACES: 'eth0', REACH_TIMEOUT: '0', REACH_COMMAND: '' },
    ...settings,
  }
  const body = `${host}\n${script}\nif reachable; then echo well; else echo "$unreachable"; fi
    # the check must leave nothing behind
    ip -oneline link show reach-in 2>/dev/null || true; ip rule; ip -6 rule`
  writeFileSync(join(root.dir, 'root/body'), body)
  const said = await root.sh('unshare --net bash -euo pipefail /root/body', { env })
  expect(said).not.toMatch(/reach-in|22022/)
  return said.split('\n0:')[0]!
}

const banner = (over: string): RegExp =>
  new RegExp(`^reached SSH-2.0-OpenSSH\\S*.* over ${over}\\nwell$`)
const noAddress = /^this host cannot be reached: no address on eth0 that is up and has a link$/

test('A host that answers is reached, by each kind of address', async () => {
  expect(await asked('')).toMatch(banner('eth0 at 10.9.0.15'))
  const six = 'ip address flush dev eth0; ip address add fd00:9::15/64 dev eth0 nodad; sleep 1'
  expect(await asked(six)).toMatch(banner('eth0 at fd00:9::15'))
  for (const address of ['10.9.0.14/31', '10.9.0.14/32']) {
    const other = `ip address flush dev eth0; ip address add ${address} dev eth0`
    expect(await asked(other)).toMatch(banner('eth0 at 10.9.0.14'))
  }
})

test('A host is reached where the kernel checks return paths strictly', async () => {
  const strict = `card eth1 10.9.1.15/24
    for name in all eth0 eth1; do echo 1 >/proc/sys/net/ipv4/conf/$name/rp_filter; done`
  for (const [nic, address] of [
    ['eth0', '10.9.0.15'],
    ['eth1', '10.9.1.15'],
  ] as const) {
    // one path in 256 is wrong, so allow a retry
    const settings = { REACH_TIMEOUT: '30', REACH_INTERFACES: nic }
    expect(await asked(strict, settings)).toMatch(banner(`${nic} at ${address}`))
  }
})

test.each([
  ['without an address', 'ip address flush dev eth0'],
  ['whose NIC is down', 'ip link set eth0 down'],
  ['without a link', 'ip link set wire-eth0 down; sleep 2'],
  ['whose address is of another interface', 'card eth1 10.9.1.15/24; ip address flush dev eth0'],
])('A host %s is not reached', async (_, script) => {
  expect(await asked(script)).toMatch(noAddress)
})

test('The check waits for an address', async () => {
  const later = 'ip address flush dev eth0; { sleep 2; ip address add 10.9.0.15/24 dev eth0; } &'
  expect(await asked(later, { REACH_TIMEOUT: '20' })).toMatch(banner('eth0 at 10.9.0.15'))
})

test('Setting the clock does not shorten the wait for an address', async () => {
  const later = `ip address flush dev eth0
    n=0
    sleep() { SECONDS=$((SECONDS + 36000)) n=$((n + 1)); ((n < 3)) || ip address replace 10.9.0.15/24 dev eth0; }`
  expect(await asked(later, { REACH_TIMEOUT: '60' })).toMatch(banner('eth0 at 10.9.0.15'))
})

test('An sshd that does not answer is not enough, nor one that answers only the host itself', async () => {
  expect(await asked('kill "$(</run/sshd.pid)"; sleep 0.5')).toMatch(
    /sshd does not answer at 10.9.0.15, port 22, over eth0 \(Connection refused\)$/,
  )
  // the host reaches itself, which is all that `ssh localhost` would test
  const itself = 'exec 5<>/dev/tcp/10.9.0.15/22; read -r -u 5 line; [[ $line == SSH-* ]]'
  expect(await asked(`drop eth0; ${itself}`)).toMatch(
    /sshd does not answer at 10.9.0.15, port 22, over eth0 \(no banner within 10 s\)$/,
  )
})

test('One interface that lets SSH in is enough, if it is among the configured ones', async () => {
  const two = 'card eth1 10.9.1.15/24; drop eth0'
  expect(await asked(two, { REACH_INTERFACES: 'eth0 eth1' })).toMatch(banner('eth1 at 10.9.1.15'))
  expect(await asked(two)).toContain('sshd does not answer at 10.9.0.15')
  // the wildcards of firewalls
  for (const many of ['eth+', 'eth*']) {
    expect(await asked('', { REACH_INTERFACES: `wg0 ${many}` })).toMatch(banner('eth0 at .*'))
  }
  expect(await asked('', { REACH_INTERFACES: 'eth' })).toContain('no address on eth')
  // with no interface named, the one with the default route counts; a network card has a device in /sys
  expect(await asked('', { REACH_INTERFACES: '' })).toContain('no address on any network card')
  const router = 'ip route add default via 10.9.0.2'
  expect(await asked(router, { REACH_INTERFACES: '' })).toMatch(banner('eth0 at 10.9.0.15'))
})

test.each([
  ['10.9.0.13', 30, '10.9.0.14'],
  ['10.9.0.14', 31, '10.9.0.15'],
  ['10.9.0.14', 32, '10.9.0.15'],
  ['fd00:9::15', 64, 'fd00:9::17'],
  ['fd00:9::', 64, 'fd00:9::2'],
])('The neighbour of %s/%i can only be %s', async (address, length, neighbour) => {
  const ask = `. /root/reachability.sh
    for _ in {1..30}; do reach_next_to ${address} ${length} || true; done | sort -u`
  expect(await root.sh(`unshare --net bash -euo pipefail -c '${ask}'`)).toBe(neighbour)
})

test('A neighbour is never the host itself, the router, the network or its broadcast', async () => {
  const ask = `. /root/reachability.sh
    ip link set lo up; ip address add 10.9.0.9/29 dev lo; ip address add 10.9.0.10/29 dev lo
    ip route add default via 10.9.0.11
    for _ in {1..99}; do reach_next_to 10.9.0.9 29 || true; done | sort -u`
  const found = await root.sh(`unshare --net bash -euo pipefail -c '${ask}'`)
  expect(found.split('\n')).toEqual(['10.9.0.12', '10.9.0.13', '10.9.0.14'])
})

test('Simultaneous checks take turns', async () => {
  const others = `for _ in 1 2 3; do { reachable >/dev/null || echo "$unreachable"; } & done; wait`
  expect(await asked(others)).toMatch(banner('eth0 at 10.9.0.15'))
})

test('A host whose addresses cannot be listed is not reached', async () => {
  const broken = (options: string) =>
    `ip() { [[ "$*" != "${options}" ]] || return 1; command ip "$@"; }`
  for (const options of ['-oneline address show up scope global', '-6 route show default']) {
    expect(await asked(broken(options))).toBe(
      'this host cannot be reached: its addresses cannot be listed',
    )
  }
})

test('A command that never ends is stopped, and the host counts as not reached', async () => {
  const from = performance.now()
  const settings = { REACH_COMMAND: 'sleep 100', REACH_TIMEOUT: '1' }
  expect(await asked('', settings)).toBe('this host cannot be reached: `sleep 100` exited with 124')
  expect(performance.now() - from).toBeLessThan(60_000)
})

test('A command replaces the check, and nothing is checked if it is turned off', async () => {
  const command = (text: string) => ({ REACH_COMMAND: text })
  expect(await asked('ip link del eth0', command('true'))).toBe('well')
  expect(await asked('', command('exit 3'))).toBe(
    'this host cannot be reached: `exit 3` exited with 3',
  )
  expect(await asked('ip link del eth0', { REACH_PORT: '' })).toBe('well')
})

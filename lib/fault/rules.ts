import { kindOf, links, type Fault, type Link } from './fault.ts'
import { programPath } from '../vm/guest-agent.ts'
import { quote } from '../quote.ts'
import { uplink } from '../vm/qemu.ts'
import { macs } from '../vm/vm.ts'

/** The device through which incoming packets are redirected when a fault affects them. */
const inbound = (link: Link): string => `fault-${link}`

/** The unit in the guest that holds a link's lease. When it ends, for any reason, the rules are removed. */
const unit = (link: Link): string => `lab-fault-${link}`

/**
 * The commands that inject a fault into the guest's kernel (tc(8), tc-netem(8)): netem changes
 * packets, the clsact hooks drop them. None for a fault of the cable.
 * @param peerSlot slot of a partition's other side, which is recognised by its MAC
 */
export function rules(fault: Pick<Fault, 'kind' | 'link' | 'direction' | 'value'>, peerSlot = 0) {
  const { kind, link, direction } = fault
  const netem = netemOf(fault)
  const clsact = `tc qdisc add dev ${link} clsact`
  const drop = (hook: 'ingress' | 'egress', match: string): string[] => [
    clsact,
    `tc filter add dev ${link} ${hook} ${match} action drop`,
  ]
  if (netem) {
    const ways: string[] = []
    if (direction !== 'in') ways.push(`tc qdisc add dev ${link} root netem ${netem} limit 10000`)
    if (direction !== 'out') {
      const way = inbound(link)
      ways.push(
        `ip link add ${way} type ifb`,
        `ip link set ${way} up`,
        `tc qdisc add dev ${way} root netem ${netem} limit 10000`,
        clsact,
        `tc filter add dev ${link} ingress matchall action mirred egress redirect dev ${way}`,
      )
    }
    return ways
  }
  if (kind === 'one-way') return drop(direction === 'in' ? 'ingress' : 'egress', 'matchall')
  if (kind === 'partition') return drop('ingress', `flower src_mac ${macs(peerSlot).lan}`)
  if (kind === 'dns') return drop('egress', `protocol ip flower dst_ip ${uplink.dns}`)
  return []
}

function netemOf({ kind, value }: Pick<Fault, 'kind' | 'value'>): string | undefined {
  if (kind === 'delay') return `delay ${value}ms`
  if (kind === 'jitter') return `delay ${value}ms ${value}ms`
  if (kind === 'loss') return `loss random ${value}%`
  if (kind === 'duplicate') return `duplicate ${value}%`
  if (kind === 'corrupt') return `corrupt ${value}%`
  if (kind === 'rate') return `rate ${value}kbit`
  return undefined
}

const clear = (link: Link): string =>
  [
    `tc qdisc del dev ${link} root`,
    `tc qdisc del dev ${link} clsact`,
    `ip link del ${inbound(link)}`,
  ]
    .map((command) => `${command} 2>/dev/null`)
    .join('; ')

/**
 * The shell program that injects a fault: first the lease, as a transient unit of the guest's
 * systemd, so that every rule will be removed; then the rules. The unit's description holds the
 * fault itself, in case the record is lost.
 * @param lease seconds
 */
export function injection(fault: Fault, commands: string[], lease: number): string {
  const after = `-/bin/sh -c "${clear(fault.link)}"`
  return [
    'set -e',
    programPath,
    [
      'systemd-run --quiet --collect --property=Type=exec --setenv=PATH="$PATH"',
      `--unit=${unit(fault.link)} --description=${quote(JSON.stringify(fault))}`,
      `--property=ExecStopPost=${quote(after)} sleep ${lease}`,
    ].join(' '),
    `trap 'test $? = 0 || systemctl stop ${unit(fault.link)}' EXIT`,
    ...commands,
  ].join('\n')
}

/** The shell program that heals links, whatever fault they have, recorded or not. */
export const healing = (which: readonly Link[]): string =>
  [
    programPath,
    // one at a time: a unit that does not exist would keep the others from being stopped
    ...which.map((link) => `systemctl stop ${unit(link)} 2>/dev/null; ${clear(link)}`),
    'true',
  ].join('\n')

/** The shell program that prints the real state of the guest's links; `seen` reads its output. */
export const looking = [
  programPath,
  `for link in ${links.join(' ')}; do echo "carrier $link $(cat /sys/class/net/$link/carrier)"; done`,
  `systemctl show ${links.map(unit).join(' ')} --property=Id,ActiveState,Description`,
  'tc -j qdisc show',
].join('\n')

/** The real state of a guest's link. */
export interface Seen {
  carrier: boolean
  /** The fault whose lease the guest holds. */
  lease?: Fault
  /** Whether it has any rule of a fault, with or without a lease. */
  ruled: boolean
}

/** Reads the output of `looking`. */
export function seen(answer: string): Record<Link, Seen> {
  const qdiscs = JSON.parse(/^\[.*\]$/m.exec(answer)?.[0] ?? '[]') as {
    kind: string
    dev: string
  }[]
  const units = answer
    .split(/\n\n|\n(?=Id=)/)
    .filter((block) => /^ActiveState=active$/m.test(block))
  const of = (link: Link): Seen => {
    const block = units.find((text) => text.includes(`Id=${unit(link)}.service`))
    const description = /^Description=(.*)$/m.exec(block ?? '')?.[1]
    return {
      carrier: answer.includes(`carrier ${link} 1\n`),
      lease: description?.startsWith('{') ? (JSON.parse(description) as Fault) : undefined,
      ruled: qdiscs.some(
        ({ kind, dev }) =>
          (dev === link && (kind === 'netem' || kind === 'clsact')) || dev === inbound(link),
      ),
    }
  }
  return { uplink: of('uplink'), lan: of('lan') }
}

/** Whether the state of a guest's link agrees with a fault that is in effect. */
export const agrees = (fault: Fault, there: Seen): boolean =>
  kindOf(fault.kind).cable
    ? fault.kind === 'flap' || !there.carrier
    : there.lease?.id === fault.id && there.ruled

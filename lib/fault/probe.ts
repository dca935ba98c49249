import { Failure } from '../failure.ts'
import type { Link } from './fault.ts'
import { programPath, type GuestAgent } from '../vm/guest-agent.ts'
import { uplink } from '../vm/qemu.ts'

/** The summary of ping(8) from iputils. */
export interface Pinged {
  sent: number
  /** Replies that came back undamaged, duplicates not counted. */
  received: number
  duplicates: number
  /** Round trips in ms, in the order in which they ended. */
  times: number[]
}

/** @throws Failure when there is no summary to read */
export function readPing(text: string): Pinged {
  const found = /(\d+) packets transmitted, (\d+) received(?:, \+(\d+) duplicates)?/.exec(text)
  // a guest that drops its routes when it loses the carrier does not even send
  if (/unreachable/.test(text) && !found) return { sent: 0, received: 0, duplicates: 0, times: [] }
  if (!found) throw new Failure('Cannot read what ping said', { evidence: text.slice(-400) })
  const [sent, received, duplicates] = found.slice(1).map((digits) => Number(digits ?? 0))
  const times = [...text.matchAll(/ time=([0-9.]+) ms(?! \(DUP)/g)].map((one) => Number(one[1]))
  return { sent: sent!, received: received!, duplicates: duplicates!, times }
}

/**
 * Pings from a guest, as root. Lost packets are not a failure.
 * @param flags of ping(8)
 * @param options.neighbour MAC of the target, for a link over which ARP cannot resolve it
 * @param options.limit seconds
 */
export async function ping(
  guest: GuestAgent,
  target: string,
  flags: string,
  options: { neighbour?: { link: Link; mac: string }; limit?: number } = {},
): Promise<Pinged> {
  const { neighbour, limit = 60 } = options
  const entry = neighbour && `${target} dev ${neighbour.link}`
  const lines = [
    entry && `ip neigh replace ${entry} lladdr ${neighbour.mac} nud permanent`,
    `ping -n ${flags} ${target} 2>&1`,
    // not deleted, so that the guest still knows its neighbour afterwards
    entry && `ip neigh change ${entry} lladdr ${neighbour.mac} nud stale`,
  ]
  return readPing(await shell(guest, lines.filter(Boolean).join('\n'), limit))
}

/** Whether a TCP connection to the git daemon opens within 4 s. */
export const gitAnswers = (guest: GuestAgent): Promise<boolean> =>
  says(guest, `timeout 4 bash -c 'exec 3<>/dev/tcp/${uplink.git}/9418'`)

/** Whether the name of the git server resolves within 8 s; without a fault it takes half a second. */
export const nameIsFound = (guest: GuestAgent): Promise<boolean> =>
  says(guest, `timeout 8 getent hosts ${uplink.gitName}`)

/** How many packets a NIC has sent and received, and how many echo requests (`asked`) reached the guest. */
export async function counters(
  guest: GuestAgent,
  link: Link,
): Promise<{ sent: number; received: number; asked: number }> {
  const nic = `/sys/class/net/${link}/statistics`
  const answer = await shell(guest, `cat ${nic}/tx_packets ${nic}/rx_packets; cat /proc/net/snmp`)
  const [sent, received] = answer.split('\n').map(Number)
  const [names, values] = answer.split('\n').filter((line) => line.startsWith('Icmp: '))
  const column = names?.split(' ').indexOf('InEchos') ?? -1
  return { sent: sent!, received: received!, asked: Number(values?.split(' ')[column]) }
}

/**
 * The share of time that a link had no carrier, and how often the carrier changed.
 * @param seconds to watch the link for
 */
export async function watchCarrier(
  guest: GuestAgent,
  link: Link,
  seconds: number,
): Promise<{ without: number; changes: number }> {
  const answer = await shell(
    guest,
    [
      'now() { read -r t _ </proc/uptime; t=${t%.*}${t#*.}; }',
      `now; end=$((t + ${Math.round(seconds * 100)}))`,
      // looks once more after the end, so that a guest that was paused meanwhile still has two readings
      `while :; do read -r c </sys/class/net/${link}/carrier; echo "$t $c"; [ "$t" -lt "$end" ] || break; sleep 0.1; now; done`,
    ].join('\n'),
    seconds + 30,
  )
  const looks = answer
    .trim()
    .split('\n')
    .map((line) => line.split(' ').map(Number))
  let without = 0
  let changes = 0
  for (const [index, [at, carrier]] of looks.entries()) {
    const [next, then] = looks[index + 1] ?? []
    if (next === undefined) break
    if (carrier === 0) without += next - at!
    if (then !== carrier) changes += 1
  }
  return { without: without / (looks.at(-1)![0]! - looks[0]![0]! || 1), changes }
}

/** Runs a shell program in a guest and ignores its exit code. @returns what it printed */
export async function shell(guest: GuestAgent, program: string, limit = 30): Promise<string> {
  const input = `${programPath}\n${program}\n`
  return (await guest.exec('/bin/sh', ['-s'], { input, timeout: limit, allow: 'any' })).stdout
}

const says = async (guest: GuestAgent, command: string): Promise<boolean> =>
  (await shell(guest, `${command} >/dev/null 2>&1 && echo yes`)).trim() === 'yes'

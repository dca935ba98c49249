import { usage } from './failure.ts'
import { hostName } from './host-name.ts'

/** The NICs that can be faulted. mgmt never is: it is how the lab stays in command. */
export const links = ['uplink', 'lan'] as const
export type Link = (typeof links)[number]

/** For shell programs in a guest: NixOS has its commands in the first directory, Debian in the others. */
export const programPath = 'export PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Which way the fault lies, as the VM sees it. */
export const directions = ['out', 'in', 'both'] as const
export type Direction = (typeof directions)[number]

interface KindOf {
  describe: string
  /** What its number is, and the least and most that can be proved by measuring. */
  unit?: { option: 'ms' | 'percent' | 'kbit'; symbol: string; least: number; most: number }
  /** Links it makes sense on; both without. */
  link?: Link
  /** Ways it can lie; without, it has none to choose. The first is the default. */
  directions?: readonly Direction[]
  /** The cable is QEMU's to pull; all else is done in the guest's kernel. */
  cable?: true
}

const eitherWay = ['out', 'in', 'both'] as const
const percent = { option: 'percent', symbol: '%', least: 1, most: 90 } as const
const ms = { option: 'ms', symbol: 'ms', least: 20, most: 5000 } as const

/** Every kind of fault, and what may be asked of it. */
export const kinds = {
  cut: { describe: 'the cable is pulled: the guest sees no carrier', cable: true },
  flap: { describe: 'the cable is pulled and put back, again and again', cable: true },
  delay: { describe: 'every packet comes --ms later', unit: ms, directions: eitherWay },
  jitter: {
    describe: 'every packet comes between 0 and twice --ms later, so that they overtake',
    unit: ms,
    directions: eitherWay,
  },
  loss: { describe: '--percent of the packets are lost', unit: percent, directions: eitherWay },
  duplicate: { describe: '--percent come twice', unit: percent, directions: eitherWay },
  corrupt: { describe: '--percent have a wrong bit', unit: percent, directions: eitherWay },
  rate: {
    describe: 'no more than --kbit a second get through',
    unit: { option: 'kbit', symbol: 'kbit/s', least: 16, most: 20_000 },
    directions: eitherWay,
  },
  'one-way': { describe: 'nothing gets through one way', directions: ['out', 'in'] },
  partition: { describe: 'two VMs no longer hear each other, all others do', link: 'lan' },
  dns: { describe: 'the name server does not answer; addresses still do', link: 'uplink' },
} as const satisfies Record<string, KindOf>

export type Kind = keyof typeof kinds

export const kindOf = (kind: Kind): KindOf => kinds[kind]

/** A fault as it is asked for: of one VM, or for a partition of two. */
export interface Request {
  kind: Kind
  link: Link
  hosts: string[]
  direction: Direction
  /** In the kind's unit: ms, percent or kbit. */
  value?: number
  /** Flap: seconds without and with the cable. */
  down?: number
  up?: number
  /** Seconds until it heals itself. */
  lease: number
}

/** A fault that one VM has, as it is recorded. Times are in ms since the epoch. */
export interface Fault extends Omit<Request, 'hosts' | 'lease'> {
  id: string
  host: string
  /** The other side of a partition. */
  peer?: string
  since: number
  until: number
  /** `wanted` until the guest has it: a task that is killed leaves no fault that is not there. */
  state: 'wanted' | 'active'
  /** The QEMU that it was put in: what the guest's kernel does ends with it, a pulled cable does not. */
  qemu: { pid: number; start: number }
  /** Round trip in ms before the fault, least and median, with the payload that it is measured by. */
  before: RoundTrip
}

export interface RoundTrip {
  least: number
  median: number
}

/**
 * Whether a recorded fault is at work: its lease runs and, unless it is the cable's, the QEMU that
 * it was put in is the one that runs.
 */
export function holds(
  fault: Fault,
  qemu: { pid: number; start: number } | undefined,
  now: number,
): boolean {
  if (fault.state !== 'active' || now >= fault.until || !qemu) return false
  const same = fault.qemu.pid === qemu.pid && fault.qemu.start === qemu.start
  return same || kindOf(fault.kind).cable === true
}

/** Whether the cable of a link is in at this moment, by the faults that are recorded of a VM. */
export function cableIn(faults: Fault[], link: Link, now: number): boolean {
  return !faults.some((fault) => {
    if (fault.link !== link || fault.state !== 'active') return false
    if (now < fault.since || now >= fault.until) return false
    if (fault.kind === 'cut') return true
    if (fault.kind !== 'flap') return false
    const { down = 0, up = 0 } = fault
    return ((now - fault.since) / 1000) % (down + up) < down
  })
}

/** One line for people: `loss 20 % out on uplink of sorrow`. */
export function faultName(fault: Omit<Fault, 'id' | 'since' | 'until' | 'state' | 'qemu'>): string {
  const { kind, value, down, up, link, host, peer } = fault
  const { unit, directions: ways } = kindOf(kind)
  const words = [
    kind,
    unit && `${value} ${unit.symbol}`,
    kind === 'flap' && `${down} s out, ${up} s in,`,
    ways && fault.direction,
    `on ${link} of ${host}`,
    peer && `from ${peer}`,
  ]
  return words.filter(Boolean).join(' ')
}

/** Whole seconds until a lease ends, never below 0. */
export const secondsLeft = (fault: Pick<Fault, 'until'>, now: number): number =>
  Math.max(0, Math.ceil((fault.until - now) / 1000))

/** A fault as a command line has it. */
export interface Words {
  link?: string
  vm?: string | string[]
  direction?: string
  for?: string
  ms?: number
  percent?: number
  kbit?: number
  down?: number
  up?: number
}

/**
 * Reads what was asked on a command line.
 * @throws Failure (usage) naming what is wrong, with what would be right
 */
export function readRequest(kind: string, args: Words): Request {
  if (!Object.hasOwn(kinds, kind)) {
    throw usage(`Cannot inject \`${kind}\`: there is no such fault`, Object.keys(kinds).join(', '))
  }
  const of = kindOf(kind as Kind)
  const link = readLink(args.link ?? of.link, kind)
  if (of.link && link !== of.link) {
    throw usage(`Cannot inject ${kind} on ${link}: it is a fault of ${of.link}`)
  }
  const hosts = [...new Set([args.vm ?? []].flat().map(hostName))]
  const wanted = kind === 'partition' ? 2 : 1
  if (hosts.length === 0 || (link === 'lan' && hosts.length !== wanted)) {
    throw usage(
      `Cannot inject ${kind} on ${link} of ${hosts.length} VMs`,
      wanted === 2
        ? 'A partition lies between two: --vm sorrow --vm torment'
        : 'Name one with --vm sorrow: on lan the others are what it is measured against',
    )
  }
  return {
    kind: kind as Kind,
    link,
    hosts,
    direction: readDirection(of, kind, args.direction),
    ...readNumbers(of, kind, args),
    lease: seconds(args.for ?? '60s'),
  }
}

function readLink(link: string | undefined, kind: string): Link {
  if (links.includes(link as Link)) return link as Link
  if (link === undefined) throw usage(`Cannot inject ${kind} without --link uplink or --link lan`)
  if (link !== 'mgmt') throw usage(`Cannot inject ${kind} on \`${link}\`: no such link`)
  throw usage('Cannot inject a fault on mgmt: the lab commands its VMs over it', '--link uplink')
}

function readDirection(of: KindOf, kind: string, asked: string | undefined): Direction {
  const direction = (asked ?? of.directions?.[0] ?? 'both') as Direction
  if (asked === undefined || of.directions?.includes(direction)) return direction
  throw usage(
    `Cannot inject ${kind} with the direction \`${asked}\``,
    of.directions ? `It has ${of.directions.join(', ')}` : 'It has none to choose',
  )
}

function readNumbers(
  { unit }: KindOf,
  kind: string,
  args: Words,
): Pick<Request, 'value' | 'down' | 'up'> {
  const units = ['ms', 'percent', 'kbit', 'down', 'up'] as const
  const own: string[] = kind === 'flap' ? ['down', 'up'] : unit ? [unit.option] : []
  const extra = units.find((option) => args[option] !== undefined && !own.includes(option))
  if (extra) throw usage(`Cannot inject ${kind} with --${extra}: it has no such number`)
  const within = (
    option: (typeof units)[number],
    least: number,
    most: number,
    fallback?: number,
  ): number => {
    const value = args[option] ?? fallback ?? Number.NaN
    if (value >= least && value <= most) return value
    const hint = `Write --${option} with a number from ${least} to ${most}`
    if (args[option] === undefined) throw usage(`Cannot inject ${kind} without --${option}`, hint)
    throw usage(`Cannot inject ${kind} with --${option} ${args[option]}`, hint)
  }
  if (kind === 'flap') return { down: within('down', 1, 60, 2), up: within('up', 1, 60, 3) }
  return unit ? { value: within(unit.option, unit.least, unit.most) } : {}
}

/**
 * A lease as people write it (`60s`, `2m`, `1h`, `90`), in seconds.
 * @throws Failure (usage) when it is none, or too short to be proved or long enough to be forgotten
 */
export function seconds(text: string): number {
  const found = /^([0-9]+(?:\.[0-9]+)?)\s*(s|m|h)?$/.exec(text.trim())
  const value = Number(found?.[1]) * { s: 1, m: 60, h: 3600 }[found?.[2] ?? 's']!
  if (found && value >= 5 && value <= 6 * 3600) return value
  throw usage(`Cannot read \`${text}\` as a lease`, 'Write a time from 5s to 6h, such as 60s or 2m')
}

/** The NICs that can be faulted. mgmt never is: the lab controls its VMs over it. */
export const links = ['uplink', 'lan'] as const
export type Link = (typeof links)[number]

/** The direction of the packets that a fault affects, as the VM sees it. */
export const directions = ['out', 'in', 'both'] as const
export type Direction = (typeof directions)[number]

export interface KindOf {
  describe: string
  /** The option that gives its number, with the least and most that measuring can prove. */
  unit?: { option: 'ms' | 'percent' | 'kbit'; symbol: string; least: number; most: number }
  /** The only link that it makes sense on. Default: both. */
  link?: Link
  /** The directions that can be chosen, the default first; undefined where there is no choice. */
  directions?: readonly Direction[]
  /** QEMU pulls the cable; every other fault is made by the guest's kernel. */
  cable?: true
}

const eitherWay = ['out', 'in', 'both'] as const
const percent = { option: 'percent', symbol: '%', least: 1, most: 90 } as const
const ms = { option: 'ms', symbol: 'ms', least: 20, most: 5000 } as const
const kbit = { option: 'kbit', symbol: 'kbit/s', least: 16, most: 20_000 } as const

/** Every kind of fault, with the options that it takes. */
export const kinds = {
  cut: { describe: 'the cable is pulled: the guest sees no carrier', cable: true },
  flap: { describe: 'the cable is pulled and put back, again and again', cable: true },
  delay: { describe: 'every packet arrives --ms later', unit: ms, directions: eitherWay },
  jitter: {
    describe: 'every packet arrives 0 to twice --ms later, so that packets overtake each other',
    unit: ms,
    directions: eitherWay,
  },
  loss: { describe: '--percent of the packets are lost', unit: percent, directions: eitherWay },
  duplicate: { describe: '--percent arrive twice', unit: percent, directions: eitherWay },
  corrupt: { describe: '--percent have one bit flipped', unit: percent, directions: eitherWay },
  rate: {
    describe: 'at most --kbit a second get through',
    unit: kbit,
    directions: eitherWay,
  },
  'one-way': { describe: 'nothing gets through in one direction', directions: ['out', 'in'] },
  partition: { describe: 'two VMs cannot reach each other; both reach all others', link: 'lan' },
  dns: { describe: 'the name server does not answer; addresses still do', link: 'uplink' },
} as const satisfies Record<string, KindOf>

export type Kind = keyof typeof kinds

export const kindOf = (kind: Kind): KindOf => kinds[kind]

/** A request for a fault, on one or more VMs; a partition needs two. */
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

/** The record of a fault on one VM. Times are in ms since the epoch. */
export interface Fault extends Omit<Request, 'hosts' | 'lease'> {
  id: string
  host: string
  /** The other side of a partition. */
  peer?: string
  since: number
  until: number
  /** `wanted` until the fault is in place, so that a killed task leaves no record of a fault that never was. */
  state: 'wanted' | 'active'
  /** The QEMU it was injected into: a fault of the guest's kernel ends with that QEMU, a pulled cable does not. */
  qemu: { pid: number; start: number }
  /** Round trip in ms before the fault, with the same payload as the measurement of the fault. */
  before: RoundTrip
}

export interface RoundTrip {
  least: number
  median: number
}

/**
 * Whether a recorded fault is in effect: its lease has not ended and the QEMU that it was injected
 * into still runs. A fault of the cable outlives that QEMU.
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

/** Whether the cable of a link should be plugged in at this moment, by a VM's recorded faults. */
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

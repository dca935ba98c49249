/** The NICs that can be faulted. mgmt never is: it is how the lab stays in command. */
export const links = ['uplink', 'lan'] as const
export type Link = (typeof links)[number]

/** Which way the fault lies, as the VM sees it. */
export const directions = ['out', 'in', 'both'] as const
export type Direction = (typeof directions)[number]

export interface KindOf {
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
/** The units that faults have numbers in. */
const percent = { option: 'percent', symbol: '%', least: 1, most: 90 } as const
const ms = { option: 'ms', symbol: 'ms', least: 20, most: 5000 } as const
const kbit = { option: 'kbit', symbol: 'kbit/s', least: 16, most: 20_000 } as const

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
    unit: kbit,
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

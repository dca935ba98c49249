import type { Fault, RoundTrip } from './fault.ts'
import type { Pinged } from './probe.ts'

/** Whether a measured fault does what was requested. */
export interface Proof {
  holds: boolean
  /** One line: the requested value, the measured one, and the tolerance. */
  text: string
}

type Asked = Pick<Fault, 'kind' | 'direction' | 'value'>

/** Standard deviations that a measured share may be off. A correct fault is off by more than 4 once in 16 000. */
const sigmas = 4

/**
 * How many packets prove a share: enough to keep the tolerance at or below 40 % of it, so that a fault
 * that does nothing, or only a small part, never passes.
 * @param percent from 1 to 90
 */
export function sampleOf(percent: number): number {
  const p = percent / 100
  return Math.max(400, Math.ceil(((sigmas / 0.4) ** 2 * (1 - p)) / p))
}

/** Flags of ping(8) for the sample that measures a kind of fault. */
export function pingFlags({ kind, value = 0 }: Asked): string {
  if (kind === 'delay') return '-i 0.02 -c 40'
  // far enough apart that most arrive in order, yet done within seconds
  if (kind === 'jitter') return '-i 0.01 -c 400'
  if (kind === 'rate') return `-A -c 8 -s ${payload(value)}`
  // in a packet of 1000 bytes a checksum covers the flipped bit in all but 1 of 70 cases
  return `-q -f -c ${sampleOf(value)} -s ${kind === 'corrupt' ? 1000 : 56}`
}

/** Bytes of payload that take about 0.1 s at a rate: long enough to stand out from the guest's own delays. */
export const payload = (kbit: number): number =>
  Math.min(16_000, Math.max(200, Math.round((kbit * 1000 * 0.1) / 8)))

/** Bits on the wire of an echo with so many bytes of payload: each fragment of 1480 bytes has two headers. */
const bits = (bytes: number): number => 8 * (bytes + 8 + 34 * Math.ceil((bytes + 8) / 1480))

/** Judges a fault that ping measures. @param before round trip before the fault, with the same payload */
export function judgePing(fault: Asked, seen: Pinged, before: RoundTrip): Proof {
  const { kind, direction, value = 0 } = fault
  const ways = direction === 'both' ? 2 : 1
  const sample = `${seen.sent} packets`
  if (seen.received === 0) return { holds: false, text: `nothing of ${sample} came back` }
  const now = roundTrip(seen.times)
  if (kind === 'delay') {
    const asked = value * ways
    return compare(
      'delay',
      'ms',
      asked,
      now.median - before.median,
      Math.max(10, asked / 10),
      sample,
    )
  }
  if (kind === 'jitter') {
    // the interquartile range of the delay: `value` for one direction, (4 - 2 sqrt(2)) times that for both
    const asked = value * (ways === 2 ? 4 - 2 * Math.SQRT2 : 1)
    return compare('jitter', 'ms', asked, spread(seen.times), asked / 4, sample)
  }
  if (kind === 'rate') {
    const extra = Math.max(0.001, now.least - before.least)
    const measured = (ways * bits(payload(value))) / extra
    return compare('rate', 'kbit/s', value, measured, value / 5, sample)
  }
  const { share, deviation } = expected(fault)
  const measured =
    kind === 'duplicate' ? seen.duplicates / seen.sent : 1 - seen.received / seen.sent
  const tolerance = (100 * sigmas * deviation) / Math.sqrt(seen.sent)
  return compare(kind, '%', 100 * share, 100 * measured, tolerance, sample)
}

/** The share of echoes that a fault should hit, and the standard deviation of one. Both directions make two chances. */
function expected({ kind, direction, value = 0 }: Asked): { share: number; deviation: number } {
  const p = value / 100
  if (direction !== 'both') return { share: p, deviation: Math.sqrt(p * (1 - p)) }
  if (kind === 'duplicate') {
    // each of 1 or 2 requests is answered by 1 or 2 replies
    return { share: 2 * p + p * p, deviation: Math.sqrt(p * (1 - p) * (1 + p) * (2 + p)) }
  }
  const hit = 1 - (1 - p) ** 2
  return { share: hit, deviation: Math.sqrt(hit * (1 - hit)) }
}

function compare(
  what: string,
  unit: string,
  asked: number,
  measured: number,
  tolerance: number,
  sample: string,
): Proof {
  const round = (value: number): string =>
    value.toFixed(Math.abs(value) < 10 ? 1 : 0).replace(/\.0$/, '')
  return {
    holds: Math.abs(measured - asked) <= tolerance,
    text: `${what} ${round(asked)} ${unit} asked, ${round(measured)} ${unit} measured (± ${round(tolerance)}, ${sample})`,
  }
}

export const roundTrip = (times: number[]): RoundTrip => ({
  least: Math.min(...times),
  median: quantile(times, 0.5),
})

const spread = (times: number[]): number => quantile(times, 0.75) - quantile(times, 0.25)

function quantile(values: number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN
}

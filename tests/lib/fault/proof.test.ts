import { expect, test } from 'vitest'
import { readPing, type Pinged } from '../../../lib/fault/probe.ts'
import { judgePing, payload, pingFlags, roundTrip, sampleOf } from '../../../lib/fault/proof.ts'
import { seeded } from '../../../lib/scenario/random.ts'

const before = { least: 0.2, median: 0.4 }
const pinged = (more: Partial<Pinged>): Pinged => ({
  sent: 400,
  received: 400,
  duplicates: 0,
  times: [0.3, 0.4, 0.5],
  ...more,
})

test.each([1, 5, 20, 50, 90])(
  'the sample size for %d percent tells that loss from none and from half of it',
  (percent) => {
    const sent = sampleOf(percent)
    const lost = (share: number): Pinged =>
      pinged({ sent, received: Math.round(sent * (1 - share)) })
    const asked = { kind: 'loss', direction: 'out', value: percent } as const
    expect(judgePing(asked, lost(percent / 100), before).holds).toBe(true)
    expect(judgePing(asked, lost(0), before).holds).toBe(false)
    expect(judgePing(asked, lost(percent / 200), before).holds).toBe(false)
  },
)

test('a working fault passes 300 times of 300, one at a quarter of its strength never', () => {
  const random = seeded(1)
  const sent = sampleOf(10)
  const once = (share: number): boolean => {
    let received = 0
    for (let packet = 0; packet < sent; packet++) if (random() >= share) received++
    return judgePing(
      { kind: 'loss', direction: 'out', value: 10 },
      pinged({ sent, received }),
      before,
    ).holds
  }
  const times = Array.from({ length: 300 })
  expect(times.filter(() => once(0.1))).toHaveLength(300)
  expect(times.filter(() => once(0.025))).toHaveLength(0)
})

test('loss in both directions adds up over the round trip', () => {
  const asked = { kind: 'loss', direction: 'both', value: 20 } as const
  expect(judgePing(asked, pinged({ received: 256 }), before)).toMatchObject({
    holds: true,
    text: 'loss 36 % asked, 36 % measured (± 9.6, 400 packets)',
  })
  expect(judgePing(asked, pinged({ received: 320 }), before).holds).toBe(false)
})

test('duplication in both directions counts duplicates of requests and of replies', () => {
  const asked = { kind: 'duplicate', direction: 'both', value: 20 } as const
  expect(judgePing(asked, pinged({ duplicates: 176 }), before).holds).toBe(true)
  expect(judgePing(asked, pinged({ duplicates: 80 }), before).holds).toBe(false)
})

test('if no packet came back, no fault counts as proven', () => {
  for (const kind of ['loss', 'delay', 'jitter', 'rate', 'corrupt'] as const) {
    const nothing = pinged({ received: 0, times: [] })
    expect(judgePing({ kind, direction: 'out', value: 50 }, nothing, before)).toEqual({
      holds: false,
      text: 'nothing of 400 packets came back',
    })
  }
})

test('a delay is the rise of the median, doubled if it applies in both directions', () => {
  const late = (ms: number): Pinged => pinged({ times: [ms - 1, ms, ms, ms + 400] })
  const one = { kind: 'delay', direction: 'in', value: 100 } as const
  expect(judgePing(one, late(100.6), before).holds).toBe(true)
  expect(judgePing(one, late(85), before).holds).toBe(false)
  expect(judgePing(one, late(200), before).holds).toBe(false)
  expect(judgePing({ ...one, direction: 'both' }, late(201), before).holds).toBe(true)
  // 20 ms is the least delay that can be set, and no delay at all is outside its tolerance
  expect(judgePing({ ...one, value: 20 }, late(0.4), before).holds).toBe(false)
})

test('jitter is measured by the interquartile range, which a constant delay does not widen', () => {
  const random = seeded(2)
  const times = (...widths: number[]): number[] =>
    Array.from({ length: 400 }, () => widths.reduce((sum, width) => sum + random() * width, 0))
  const one = { kind: 'jitter', direction: 'out', value: 50 } as const
  expect(judgePing(one, pinged({ times: times(100) }), before).holds).toBe(true)
  expect(judgePing(one, pinged({ times: times(50) }), before).holds).toBe(false)
  expect(judgePing(one, pinged({ times: times(0).map(() => 50) }), before).holds).toBe(false)
  const both = { ...one, direction: 'both' } as const
  expect(judgePing(both, pinged({ times: times(100, 100) }), before).holds).toBe(true)
})

test('a rate is computed from the bits on the wire and the extra time they took', () => {
  // 16000 bytes of payload took 14.1 ms at 10 Mbit/s, and 0.7 ms without a limit
  const fast = { kind: 'rate', direction: 'out', value: 10_000 } as const
  expect(payload(10_000)).toBe(16_000)
  const slow = pinged({ times: [14.068, 15.9, 20.5] })
  expect(judgePing(fast, slow, { least: 0.719, median: 7 })).toMatchObject({ holds: true })
  expect(judgePing({ ...fast, direction: 'both' }, slow, { least: 0.719, median: 7 }).holds).toBe(
    false,
  )
  expect(judgePing(fast, pinged({ times: [0.8, 0.9] }), { least: 0.7, median: 1 }).holds).toBe(
    false,
  )
})

test('each kind chooses its own ping flags and sample size', () => {
  expect(pingFlags({ kind: 'loss', direction: 'out', value: 20 })).toBe('-q -f -c 400 -s 56')
  expect(pingFlags({ kind: 'loss', direction: 'out', value: 1 })).toBe('-q -f -c 9900 -s 56')
  expect(pingFlags({ kind: 'corrupt', direction: 'out', value: 50 })).toContain('-s 1000')
  expect(pingFlags({ kind: 'rate', direction: 'out', value: 64 })).toContain('-s 800')
})

test('the summary and the times that iputils ping prints are parsed', () => {
  const summary = (line: string): Pinged =>
    readPing(
      `PING 10.0.3.2 (10.0.3.2) 56(84) bytes of data.\n\n--- 10.0.3.2 ping statistics ---\n${line}\n`,
    )
  expect(
    summary(
      '200 packets transmitted, 174 received, +27 duplicates, +21 corrupted, 13% packet loss, time 1571ms',
    ),
  ).toEqual({ sent: 200, received: 174, duplicates: 27, times: [] })
  expect(
    summary('200 packets transmitted, 160 received, +39 corrupted, 20% packet loss, time 3479ms'),
  ).toMatchObject({ received: 160, duplicates: 0 })
  expect(
    summary('5 packets transmitted, 0 received, +5 errors, 100% packet loss, time 409ms'),
  ).toEqual({ sent: 5, received: 0, duplicates: 0, times: [] })
  const lines = [
    '64 bytes from 10.0.3.2: icmp_seq=1 ttl=255 time=6.35 ms',
    '64 bytes from 10.0.3.2: icmp_seq=2 ttl=255 time=0.728 ms',
    '64 bytes from 10.0.3.2: icmp_seq=2 ttl=255 time=900 ms (DUP!)',
    '3 packets transmitted, 2 received, +1 duplicates, 33% packet loss, time 103ms',
  ]
  expect(readPing(lines.join('\n')).times).toEqual([6.35, 0.728])
  expect(readPing('ping: connect: Network is unreachable')).toMatchObject({ sent: 0 })
  expect(() => readPing('ping: unknown option')).toThrow(/Cannot read what ping said/)
  expect(roundTrip([3, 1, 2])).toEqual({ least: 1, median: 2 })
})

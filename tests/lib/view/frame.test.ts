import stringWidth from 'string-width'
import { expect, test } from 'vitest'
import { estimate, lasting } from '../../../lib/view/estimate.ts'
import { frame, wholeOf, type FrameOptions } from '../../../lib/view/frame.ts'
import type { SeenLane, SeenStep } from '../../../lib/view/seen.ts'

const now = 1_000_000
const marks = { done: '+', failed: 'x', skipped: '-', atWork: '>', dim: (text: string) => text }
const options: FrameOptions = {
  ...{ columns: 80, rows: 24, now, folded: true, ended: false, reasonsFollow: false },
  marks,
}

const pending = (title: string, usually?: number): SeenStep => ({
  title,
  state: 'pending',
  usually,
})
const done = (title: string, seconds: number, usually?: number): SeenStep => ({
  ...{ title, state: 'done', usually },
  from: now - 600_000,
  to: now - 600_000 + seconds * 1000,
})
const failed = (title: string, ago: number, outcome: string): SeenStep => ({
  ...{ title, state: 'failed', outcome },
  from: now - (ago + 20) * 1000,
  to: now - ago * 1000,
})
const atWork = (title: string, seconds: number, says?: string, usually?: number): SeenStep => ({
  ...{ title, state: 'at work', says, usually },
  from: now - seconds * 1000,
})
const many = (count: number, make: (n: number) => SeenStep): SeenStep[] =>
  Array.from({ length: count }, (_, n) => make(n))

const longRun = (): SeenLane[] => [
  {
    title: 'sorrow',
    steps: [
      ...many(20, (n) => done(`auto-upgrade case-${n}`, 25, 25)),
      failed(
        'auto-upgrade known-bad: it is not tried again',
        100,
        'known-bad: outcome: expected a, found b',
      ),
      atWork('auto-upgrade timer: it fires', 12, 'upgrade of sorrow: 12 s of at most 360 s', 60),
      ...many(20, (n) => pending(`auto-upgrade case-${n + 30}`, 60)),
    ],
  },
  {
    title: 'torment',
    steps: [
      ...many(16, (n) => done(`break-boot case-${n}`, 30, 30)),
      atWork('break-boot panic: golden is back', 70, 'torment to boot: 9 s of at most 240 s', 60),
      ...many(20, (n) => pending(`break-boot case-${n + 30}`, 60)),
    ],
  },
  { title: 'sorrow and torment', steps: many(8, (n) => pending(`both-${n}`, 90)), after: true },
]

test('a long run shows running and failed cases per VM, and a total line', () => {
  expect(frame(longRun(), options)).toEqual([
    'sorrow: 21 of 42, 1 failed',
    '  x auto-upgrade known-bad: it is not tried again (20.0 s)',
    '    known-bad: outcome: expected a, found b',
    '  > auto-upgrade timer: it fires 12 s of about 60 s',
    '    upgrade of sorrow: 12 s of at most 360 s',
    'torment: 16 of 37',
    '  > break-boot panic: golden is back 70 s of about 60 s',
    '    torment to boot: 9 s of at most 240 s',
    'sorrow and torment: 0 of 8, after the others',
    '37 of 87, 1 failed, 10 min, about 33 min left',
  ])
})

test('if VMs share a queue, each shows only the cases that it has taken', () => {
  const lanes: SeenLane[] = [
    {
      title: 'sorrow',
      steps: [
        done('a', 30, 30),
        failed('b', 9, 'b: why'),
        atWork('c (with torment)', 40, undefined, 60),
      ],
      shares: 'takes',
    },
    { title: 'torment', steps: [], shares: 'takes' },
    { title: 'sorrow (copy 1)', steps: [atWork('d', 20, 'SSH', 40)], shares: 'takes' },
    { title: 'torment (copy 1)', steps: [atWork('e', 5, undefined, 45)], shares: 'takes' },
    { title: 'to come', steps: many(10, (n) => pending(`f-${n}`, 40)), shares: 'to come' },
  ]
  expect(frame(lanes, options)).toEqual([
    'sorrow: 2 ended, 1 failed',
    '  x b (20.0 s)',
    '    b: why',
    '  > c (with torment) 40 s of about 60 s',
    'sorrow (copy 1): 0 ended',
    '  > d 20 s of about 40 s',
    '    SSH',
    'torment (copy 1): 0 ended',
    '  > e 5 s of about 45 s',
    'to come: 10',
    // 400 s to come and 80 s running, on four VMs
    '2 of 15, 1 failed, 10 min, about 2 min left',
  ])
})

test.each([
  [80, 24],
  [80, 10],
  [40, 10],
  [150, 50],
  [20, 4],
  [1, 1],
])('no frame exceeds a screen of %i x %i', (columns, rows) => {
  const lanes = longRun()
  lanes[0]!.steps.push(
    ...many(40, (n) => failed(`case ${n} ${'漢字 '.repeat(30)}`, n, `${'why '.repeat(60)}\nmore`)),
  )
  for (const folded of [true, false]) {
    for (const ended of [true, false]) {
      const lines = frame(lanes, { ...options, columns, rows, folded, ended })
      expect(lines.length).toBeLessThanOrEqual(Math.max(1, rows - 1))
      expect(lines.length).toBeGreaterThan(0)
      for (const line of lines) expect(stringWidth(line)).toBeLessThan(Math.max(columns, 3))
    }
  }
})

test('ten rows still hold the total, each VM, its running case and the newest failure', () => {
  const lanes = longRun()
  lanes[0]!.steps.push(...many(9, (n) => failed(`late-${n}`, n + 1, `why ${n}`)))
  const lines = frame(lanes, { ...options, rows: 10 })
  expect(lines).toHaveLength(9)
  expect(lines.at(-1)).toMatch(/^46 of 96, 10 failed/)
  expect(lines.filter((line) => line.startsWith('  >'))).toHaveLength(2)
  expect(lines.filter((line) => line.startsWith('  x'))).toEqual(['  x why 0'])
})

test('if all steps fit, they are shown in their order', () => {
  const lane: SeenLane = {
    title: 'sorrow',
    steps: [
      { ...done('build', 1.2), outcome: 'two words' },
      { title: 'disk', state: 'skipped', outcome: 'it has its disk' },
      atWork('start', 3, 'SSH: 3 s of at most 60 s'),
      pending('wait'),
    ],
  }
  expect(frame([lane], { ...options, folded: false })).toEqual([
    'sorrow',
    '  + build (1.2 s)',
    '    two words',
    '  - disk',
    '    it has its disk',
    '  > start 3 s',
    '    SSH: 3 s of at most 60 s',
    '    wait',
  ])
  // steps to come are dropped first, then the outcomes of steps, then the oldest step that is done
  expect(frame([lane], { ...options, folded: false, rows: 5 })).toEqual([
    'sorrow',
    '  - disk',
    '  > start 3 s',
    '    SSH: 3 s of at most 60 s',
  ])
})

test('the reason of a failed step is left out once all has ended and the reasons follow', () => {
  const lane: SeenLane = { title: 'sorrow', steps: [failed('start', 5, 'Cannot start')] }
  const tree = { ...options, folded: false, reasonsFollow: true }
  expect(frame([lane], tree).join('\n')).toContain('Cannot start')
  expect(frame([lane], { ...tree, ended: true }).join('\n')).not.toContain('Cannot start')
})

test('the outcome of a step is shown in full once all has ended', () => {
  const outcome = `tcg: ${'a long reason '.repeat(12)}end`
  const lane: SeenLane = { title: 'lab', steps: [{ ...done('preflight', 1), outcome }] }
  const said = frame([lane], { ...options, folded: false, ended: true })
  expect(
    said
      .slice(2)
      .map((line) => line.trim())
      .join(' '),
  ).toBe(outcome)
})

test('a title that is too long is truncated, so that the time of its step stays visible', () => {
  const lane: SeenLane = {
    title: 'sorrow',
    steps: [atWork('long '.repeat(40), 5, '', 60), done('wide '.repeat(40), 7)],
  }
  const lines = frame([lane], { ...options, folded: false })
  expect(lines[1]).toMatch(/long…? ?… 5 s of about 60 s$/)
  expect(lines[2]).toMatch(/wide…? ?… \(7\.0 s\)$/)
})

test('control characters in texts are removed', () => {
  const lane: SeenLane = {
    title: 'sorrow',
    steps: [atWork('start', 1, 'a\u001b[2Jb\rc\nd'), failed('stop', 2, '\u001b[31mred\u0007')],
  }
  // oxlint-disable-next-line no-control-regex -- exactly these must not be there
  for (const line of frame([lane], options)) expect(line).not.toMatch(/[\u0000-\u001f]/)
})

test.each([
  [0.4, '0 s'],
  [89, '89 s'],
  [90, '2 min'],
  [840, '14 min'],
  [3600, '1 h 0 min'],
  [3599, '1 h 0 min'],
  [7500, '2 h 5 min'],
])('%d s is formatted as %s', (seconds, said) => expect(lasting(seconds)).toBe(said))

test('the time left is that of the longest VM plus that of the cases after them', () => {
  const lanes: SeenLane[] = [
    { title: 'a', steps: [pending('1', 100), pending('2', 100)] },
    { title: 'b', steps: [pending('3', 50)] },
    { title: 'c', steps: [pending('4', 30)], after: true },
  ]
  expect(estimate(lanes, now)).toBe(230)
})

test('a running case counts with its remaining time, which is never negative', () => {
  expect(estimate([{ title: 'a', steps: [atWork('1', 40, '', 100)] }], now)).toBe(60)
  expect(estimate([{ title: 'a', steps: [atWork('1', 400, '', 100)] }], now)).toBe(0)
})

test('the estimate adapts quickly to a machine twice as fast as expected', () => {
  const lane = (done1: SeenStep[]): SeenLane[] => [
    { title: 'a', steps: [...done1, pending('next', 100)] },
  ]
  const after = many(20, (n) => done(`${n}`, 50, 100))
  expect(estimate(lane(after), now)).toBeCloseTo(100 * ((1000 + 180) / (2000 + 180)))
})

test('a case of unknown duration counts as the average, and if none is known there is no estimate', () => {
  expect(estimate([{ title: 'a', steps: [pending('1', 100), pending('2')] }], now)).toBe(200)
  expect(estimate([{ title: 'a', steps: [pending('1'), pending('2')] }], now)).toBeUndefined()
  expect(wholeOf([{ title: 'a', steps: [pending('1')] }], now)).toBe('0 of 1, 0 s')
})

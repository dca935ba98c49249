import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { plainLines } from '../../../lib/view/plain.ts'
import type { SeenLane, SeenStep } from '../../../lib/view/seen.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const step = (title: string): SeenStep => ({ title, state: 'pending', usually: 120 })
const begins = (one: SeenStep): void =>
  void Object.assign(one, { state: 'at work', from: performance.now() })

test('a step without output is reported as running each minute', () => {
  const lanes: SeenLane[] = [{ title: 'sorrow', steps: [step('timer'), step('panic')] }]
  const said: string[] = []
  const lines = plainLines(lanes, true, (line) => said.push(line))
  lines.begin()
  begins(lanes[0]!.steps[0]!)
  vi.advanceTimersByTime(59_000)
  expect(said).toEqual([])
  vi.advanceTimersByTime(121_000)
  expect(said).toEqual([
    '0 of 2, 60 s, about 3 min left',
    'sorrow: timer: 60 s',
    '0 of 2, 2 min, about 2 min left',
    'sorrow: timer: 2 min',
    '0 of 2, 3 min, about 2 min left',
    'sorrow: timer: 3 min',
  ])
  lines.end()
  vi.advanceTimersByTime(600_000)
  expect(said).toHaveLength(6)
})

test('a wait is reported after one second, and then every 30 s', () => {
  const lanes: SeenLane[] = [{ title: 'sorrow', steps: [step('timer')] }]
  const said: string[] = []
  const lines = plainLines(lanes, true, (line) => said.push(line))
  for (let second = 0; second <= 61; second++) {
    lines.say(lanes[0]!, `upgrade: ${second} s of at most 360 s`)
    vi.advanceTimersByTime(1000)
  }
  lines.say(lanes[0]!, '')
  expect(said).toEqual([1, 31, 61].map((n) => `sorrow: upgrade: ${n} s of at most 360 s`))
  lines.say(lanes[0]!, 'another: 1 s of at most 9 s')
  expect(said.at(-1)).toBe('sorrow: another: 1 s of at most 9 s')
})

test('ended cases are numbered across lanes in the order in which they end', () => {
  const lanes: SeenLane[] = [
    { title: 'sorrow', steps: [step('one'), step('two')] },
    { title: 'torment', steps: [step('three')] },
  ]
  const ends = (lane: SeenLane, one: SeenStep, counted: boolean): string => {
    Object.assign(one, { state: 'done', from: 0, to: 2500 })
    return plainLines(lanes, counted, () => {}).ended(lane, one)
  }
  expect(ends(lanes[1]!, lanes[1]!.steps[0]!, true)).toBe('[1/3] torment: three (2.5 s)')
  expect(ends(lanes[0]!, lanes[0]!.steps[0]!, true)).toBe('[2/3] sorrow: one (2.5 s)')
  expect(ends(lanes[0]!, lanes[0]!.steps[1]!, false)).toBe('sorrow: two (2.5 s)')
})

import { expect, test } from 'vitest'
import { deal, partOf, readShard } from '../../../lib/report/shard.ts'
import { choose, vmSeconds } from '../../../lib/scenario/run.ts'
import { controlsOf } from '../../../lib/scenario/control-run.ts'
import { controls } from '../../../lib/scenario/control.ts'
import { sharedDurations } from '../../../lib/scenario/durations.ts'
import { families } from '../../../tasks/pipelines/families.ts'

test('a part is written as 2/4, and anything else is refused', () => {
  expect(readShard('2/4')).toEqual({ index: 2, count: 4 })
  expect(readShard(undefined)).toBeUndefined()
  for (const text of ['', '0/4', '5/4', '2', '2/', '/4', '1/0', '-1/4', '1.5/4', '2/4/6', 'a/b']) {
    expect(() => readShard(text), text).toThrow(`Cannot read \`${text}\` as a part of a run`)
  }
})

test('deal gives the longest item first to the bin with the least load, and keeps the order', () => {
  expect(deal([2, 3, 9, 4, 1], 2, (one) => one)).toEqual([
    [9, 1],
    [2, 3, 4],
  ])
  expect(deal([], 2, () => 1)).toEqual([[], []])
})

test('more parts than cases are refused, because a part without a case would prove nothing', () => {
  const part = { index: 1, count: 3 }
  expect(() => partOf([1, 2], part, () => 1)).toThrow('Cannot make 3 parts of 2 cases')
  expect(() => partOf([1], part, () => 1, 'control')).toThrow('Cannot make 3 parts of 1 control')
  expect(partOf([1, 2], undefined, () => 1)).toEqual([1, 2])
})

const counts = [1, 2, 3, 4, 7, 12]
const known = await families()

test.each(counts)(
  'of %i parts each case is in exactly one, and they take about as long',
  (count) => {
    const all = choose(known, undefined)
    const seconds = (each: (typeof all)[number]): number =>
      vmSeconds(each, sharedDurations(undefined))
    const parts = Array.from({ length: count }, (_, at) =>
      partOf(all, { index: at + 1, count }, seconds),
    )
    expect(parts.flat()).toHaveLength(all.length)
    expect(new Set(parts.flat())).toEqual(new Set(all))
    const loads = parts.map((part) => part.reduce((sum, each) => sum + seconds(each), 0))
    const longest = Math.max(...all.map(seconds))
    const fair = Math.max(loads.reduce((a, b) => a + b) / count, longest)
    // the bound of dealing the longest first: at most a third more than the optimum
    expect(Math.max(...loads)).toBeLessThan(fair * (4 / 3))
  },
)

test.each(counts)('of %i parts each control is in exactly one', (count) => {
  const all = controls()
  const parts = Array.from({ length: count }, (_, at) =>
    controlsOf(all, known, { shard: { index: at + 1, count } }),
  )
  const names = parts.flat().map(({ name }) => name)
  expect(names.toSorted()).toEqual(all.map(({ name }) => name).toSorted())
})

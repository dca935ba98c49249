import { expect, test } from 'vitest'
import { choose, spread } from '../../lib/scenario-run.ts'
import type { Case, Family } from '../../lib/scenario.ts'

const make = (name: string, limit?: number): Case => ({
  ...{ name, title: name, limit },
  run: async () => {},
})
const family: Family = {
  name: 'f',
  describe: 'Family',
  cases: [make('a', 400), make('b'), make('c', 400), make('d'), make('e')],
}

test('cases are chosen by their name, or by their family and name', () => {
  const names = (...wanted: string[]) => choose([family], wanted).map(({ one }) => one.name)
  expect(names()).toEqual(['a', 'b', 'c', 'd', 'e'])
  expect(names('c', 'f/a')).toEqual(['a', 'c'])
  expect(() => names('x')).toThrow('Cannot find a case `x`')
})

test('hosts get as much to do, each case runs once and in the order of the table', () => {
  const lanes = spread(choose([family], undefined), ['sorrow', 'torment'])
  expect(lanes.map(({ chosen }) => chosen.map(({ one }) => one.name))).toEqual([
    ['a', 'b', 'e'],
    ['c', 'd'],
  ])
})

import { expect, test } from 'vitest'
import { nearest, suggest, unknown } from '../../lib/nearest.ts'

const cases = [
  'panic',
  'hang',
  'power-cut-in-build',
  'power-cut-in-fetch',
  'good-commit',
  'one',
  'x',
]

test.each([
  ['panik', ['panic']],
  ['pnaic', ['panic']],
  ['Panic', ['panic']],
  ['powr-cut-in-build', ['power-cut-in-build']],
  ['power-cut', ['power-cut-in-build', 'power-cut-in-fetch']],
  ['good-commits-here', ['good-commit']],
  ['gloom', []],
  // a name of one letter is contained in too many words
  ['exit', []],
  ['', ['x']],
])('for %j the suggestions are %j', (typed, meant) => {
  expect(nearest(typed, cases)).toEqual(meant)
})

test('of many similar names at most four are suggested, the nearest first', () => {
  const many = Array.from({ length: 87 }, (_, index) => `case-${index}`)
  expect(nearest('case-7', many)).toHaveLength(4)
  expect(nearest('case-7', many)[0]).toBe('case-7')
})

test('if none is near, a few names are all listed, but of many none', () => {
  expect(suggest('gloom', ['sorrow', 'torment'])).toBe('There are sorrow, torment; ')
  expect(suggest('gloom', cases)).toBe('')
  const failure = unknown('a case', 'panik', cases, 'just gitops-test --list lists all 7')
  expect(failure).toMatchObject({ exit: 2, message: 'Cannot find a case `panik`' })
  expect(failure.detail.hint).toBe('The nearest is panic; just gitops-test --list lists all 7')
})

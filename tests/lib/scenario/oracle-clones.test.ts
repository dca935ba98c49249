import { expect, test } from 'vitest'
import { changed } from '../../../lib/scenario/oracle-clones.ts'
import type { Repository } from '../../../lib/scenario/oracle-facts.ts'

const rain = 'Rain <rain@sorrow> 1790000000 +0000'
const commit = (
  change: string,
  parent: string,
  message: string,
  author = rain,
): Repository['commits'][string] => ({
  change,
  tree: change,
  parents: [parent],
  origin: `${author}\n${message}`,
})

/** Two local commits, rebased from `base` onto `next`: all versions that jj ever made of them. */
const rebased: Repository = {
  commits: {
    base: { change: undefined, tree: 't', parents: [], origin: 'Lab\nStart' },
    next: { change: undefined, tree: 't', parents: ['base'], origin: 'Lab\nTwo' },
    // before it was described, with half of its changes
    a0: commit('kkkk', 'base', '', 'Rain <rain@sorrow> 1790000001 +0200'),
    a1: commit('kkkk', 'base', 'Own one'),
    b1: commit('llll', 'a1', 'Own two'),
    a2: commit('kkkk', 'next', 'Own one'),
    b2: commit('llll', 'a2', 'Own two'),
    at: commit('wwww', 'b2', ''),
  },
  visible: [],
  shown: ['a2', 'b2', 'at'],
  patches: { a0: '+o', a1: '+one', b1: '+two', a2: '+one', b2: '+two' },
  settling: [],
  heads: ['next'],
}
const having = (commits: Repository['commits'], more: Partial<Repository> = {}): Repository => ({
  ...rebased,
  commits: { ...rebased.commits, ...commits },
  ...more,
})

test('commits that were rebased, each once and in order, count as unchanged', () => {
  expect(changed(rebased, true)).toEqual([])
  expect(changed(rebased, false)).toEqual([])
})

test('a commit that was refused and put back with a note of its conflict counts as unchanged', () => {
  const patches = { ...rebased.patches, a2: '+++ b/JJ-CONFLICT-README', b2: '+two' }
  expect(changed({ ...rebased, patches, shown: ['a1', 'b1'] }, true)).toEqual([])
})

test.each([
  [
    'changed in its author',
    having({ b2: commit('llll', 'a2', 'Own two', 'root <root@sorrow> 1790000000 +0000') }),
    /^the author of `Own two` changed/,
  ],
  [
    'changed in its message',
    having({ b2: commit('llll', 'a2', 'Rebased') }),
    /^the message of `Own two`/,
  ],
  [
    'reduced in content',
    { ...rebased, patches: { ...rebased.patches, a2: '+on' } },
    /^the content of `Own one`/,
  ],
  ['duplicated', { ...rebased, shown: ['a1', 'a2', 'b2'] }, /^`Own one` is there 2 times/],
  [
    'copied under another name',
    having({ c1: commit('cccc', 'next', 'Own one') }, { shown: ['a2', 'b2', 'c1'] }),
    /^`Own one` was copied/,
  ],
  [
    'without its parent',
    having({ b2: commit('llll', 'next', 'Own two') }),
    /^`Own two` does not stand on `Own one`/,
  ],
])('a commit that is %s is detected', (_, repository, wrong) => {
  expect(changed(repository, true)).toEqual([expect.stringMatching(wrong)])
})

test('where edits are amended the message may change, but not the author', () => {
  expect(changed(having({ b2: commit('llll', 'a2', 'Rebased') }), false)).toEqual([])
  const other = having({ b2: commit('llll', 'a2', 'Own two', 'root <r@s> 1 +0000') })
  expect(changed(other, false)).toHaveLength(1)
})

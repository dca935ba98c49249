import { expect, test } from 'vitest'
import type { Copy, TestRun } from '../../../lib/mutation/copy.ts'
import type { Traced } from '../../../lib/mutation/map.ts'
import { mutantsOf } from '../../../lib/mutation/mutant.ts'
import { meetTests, prepare } from '../../../lib/mutation/trial.ts'
import type { Verdict } from '../../../lib/mutation/verdicts.ts'
import { project } from '../../../lib/settings.ts'

const [mutant] = await mutantsOf(project, 'pin-golden', 'nix/agents/pin-golden.sh')
const hits = { 'pin-golden.sh': { [mutant!.lines[0]]: { word: 1 } } }
const traces: Traced[] = [
  {
    ...{ file: 'tests/agents/golden.test.ts', seconds: 2, failed: [] },
    tests: ['one', 'two'].map((name) => ({ name, seconds: 1 })),
    hits: { one: hits, two: hits },
  },
]

/** The verdict on a mutant whose test runs end like this, one after the other, and the tests that were run. */
async function met(ends: (string | undefined)[]): Promise<{ verdict: Verdict; asked: string[][] }> {
  const asked: string[][] = []
  const run: Copy['test'] = async (_, __, { only = [] } = {}): Promise<TestRun> => {
    const end = ends[asked.length]
    asked.push(only)
    if (end === undefined) return { state: 'green', found: '', tests: [], seconds: 1 }
    if (end === 'hung') return { state: 'hung', found: 'no end', tests: [], seconds: 1 }
    const tests = end === 'file' ? [] : [{ name: end, seconds: 1, passed: false }]
    return { state: 'red', found: `${end} is red`, tests, seconds: 1 }
  }
  const copy: Copy = { lay: () => () => {}, test: run, end: async () => {} }
  return { verdict: await meetTests(prepare(mutant!, traces), traces, copy), asked }
}

const all = ['one', 'two']
type Row = [what: string, ends: (string | undefined)[], state: Verdict['state'], runs: string[][]]
const rows: Row[] = [
  ['green', [], 'alive', [all]],
  ['red twice', ['one', 'one'], 'killed by tests', [all, ['one']]],
  ['red once', ['one'], 'alive', [all, ['one'], ['two']]],
  ['red once each', ['one', undefined, 'two'], 'alive', [all, ['one'], ['two'], ['two']]],
  [
    'red, one twice',
    ['one', undefined, 'two', 'two'],
    'killed by tests',
    [all, ['one'], ['two'], ['two']],
  ],
  ['without an end twice', ['hung', 'hung'], 'killed by tests', [all, all]],
  ['without a world once', ['file'], 'alive', [all, all]],
]
test.each(rows)('The verdict on a mutant whose tests are %s: %j', async (_, ends, state, runs) => {
  const { verdict, asked } = await met(ends)
  expect({ state: verdict.state, asked }).toEqual({ state, asked: runs })
})

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { Kind } from '../../../lib/mutation/edit.ts'
import { keptTraces } from '../../../lib/mutation/guest.ts'
import { judgesOf, type Traced } from '../../../lib/mutation/map.ts'
import { mutantsOf, programs, type Mutant } from '../../../lib/mutation/mutant.ts'
import { page, tallies, type Judged } from '../../../lib/mutation/tally.ts'
import { equivalents, kept, type State } from '../../../lib/mutation/verdicts.ts'
import { inLab, project } from '../../../lib/settings.ts'

const mutant = (line: number, kind: Kind = 'statement', agent = 'a'): Mutant => ({
  ...{ id: `${agent}${line}`, agent, file: `nix/agents/${agent}.sh`, kind, within: '', was: 'one' },
  ...{ from: 0, to: 3, instead: ':', lines: [line, line] },
})

test('Every entry of equivalent.toml is an existing mutant', async () => {
  const all = await Promise.all(
    [...programs(project)].map(([agent, file]) => mutantsOf(project, agent, file)),
  )
  const ids = new Set(all.flat().map(({ id }) => id))
  expect([...equivalents().keys()].filter((id) => !ids.has(id))).toEqual([])
})

test('An entry without a reason is refused', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'reviewed-'))
  onTestFinished(() => rmSync(scratch, { recursive: true }))
  writeFileSync(join(scratch, 'a.toml'), '[[mutant]]\nid = "1234567890"\nwhat = "x"\n')
  expect(() => equivalents(join(scratch, 'a.toml'))).toThrow('the entry 1234567890 has no reason')
})

test('A mutant is judged by the tests that run its line, the fastest first', () => {
  const traces: Traced[] = [
    {
      ...{ file: 'tests/agents/one.test.ts', seconds: 30, failed: [] },
      tests: [
        { name: 'x', seconds: 20 },
        { name: 'y', seconds: 10 },
      ],
      hits: { x: { 'a.sh': { 3: { one: 1 } } }, y: { 'a.sh': { 4: { one: 1 } } } },
    },
    {
      ...{ file: 'tests/agents/two.test.ts', seconds: 9, failed: [] },
      tests: [{ name: 'z', seconds: 8 }],
      // hits before the first test count for all tests
      hits: { '': { 'a.sh': { 3: { one: 1 } } } },
    },
  ]
  expect(judgesOf(mutant(3), traces)).toEqual([
    { file: 'tests/agents/two.test.ts', tests: ['z'], seconds: 8 },
    { file: 'tests/agents/one.test.ts', tests: ['x'], seconds: 20 },
  ])
  expect(judgesOf(mutant(5), traces)).toEqual([])
})

test('Verdicts are counted per agent and kind, and an equivalent mutant does not lower the score', () => {
  const of = (state: State, ...one: Parameters<typeof mutant>): Judged => ({
    ...{ ...mutant(...one), state, found: 'a <test>', seconds: 1, key: '' },
  })
  const judged = [
    of('killed by tests', 1),
    of('killed by scenarios', 2, 'guard'),
    of('alive', 3, 'guard'),
    of('equivalent', 4, 'lock', 'b'),
    of('not run', 5),
  ]
  const { agents, kinds, all } = tallies(judged)
  expect(all).toMatchObject({ mutants: 5, killed: 0.5 })
  expect(agents.map(({ name, killed }) => [name, killed])).toEqual([
    ['a', 0.5],
    ['b', undefined],
  ])
  expect(kinds.map(({ name, mutants }) => [name, mutants])).toEqual([
    ['statement', 2],
    ['guard', 2],
    ['lock', 1],
  ])
  const html = page(judged, 'about')
  expect(html).toContain('50 % of the mutants killed')
  expect(html).toContain('a &lt;test&gt;')
  expect(html.indexOf('>alive</b>')).toBeLessThan(html.indexOf('>killed by tests</b>'))
})

test.each(['', 'null', '{'])(
  'A damaged file of verdicts or traces (%j) is treated as missing',
  (text) => {
    const home = mkdtempSync(join(tmpdir(), 'lab-kept-'))
    onTestFinished(() => rmSync(home, { recursive: true }))
    mkdirSync(join(home, 'agent-traces'))
    writeFileSync(join(home, 'mutants.json'), text)
    writeFileSync(join(home, 'agent-traces/f-a.json'), text)
    expect(inLab(home, kept)).toEqual({ verdicts: {} })
    expect(inLab(home, keptTraces)).toEqual(new Map())
  },
)

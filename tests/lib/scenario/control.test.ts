import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { agentJson } from '../../../lib/scenario/agent-json.ts'
import { judgeThrown, placeOf, replayOf } from '../../../lib/scenario/case.ts'
import { canBeRed } from '../../../lib/scenario/check-names.ts'
import {
  anyCheck,
  controlFrom,
  controls,
  cutFiles,
  judgeControl,
  readControl,
  replayOfControl,
  resultOf,
  settle,
  undecided,
  type Proof,
} from '../../../lib/scenario/control.ts'
import { clockRanWrong } from '../../../lib/scenario/evidence.ts'
import { KernelFailed } from '../../../lib/vm/kernel.ts'
import type { CaseResult } from '../../../lib/report/result.ts'
import { choose } from '../../../lib/scenario/run.ts'
import { project } from '../../../lib/settings.ts'
import { families } from '../../../tasks/pipelines/families.ts'

const patch = `Cut: the lock of an upgrade
Case: auto-upgrade/overlap
Red: ^outcome$

diff --git a/nix/agents/x.sh b/nix/agents/x.sh
--- a/nix/agents/x.sh
+++ b/nix/agents/x.sh
@@ -5,7 +5,6 @@
 1
 2
 3
-flock 9
 5
 6
 7
`
const control = readControl('lock', patch)
const agent = (text: string | undefined) => async (path: string) =>
  path === 'nix/agents/x.sh' ? text : undefined

test('the head of a control names the cut, the case and the pattern of the red check', () => {
  expect(control).toMatchObject({
    name: 'lock',
    cut: 'the lock of an upgrade',
    case: 'auto-upgrade/overlap',
  })
  expect(() => readControl('lock', patch.replace('Red: ', 'Rad: '))).toThrow('no `Red:`')
})

test('a patch still applies if its lines have moved', async () => {
  expect(await cutFiles(control, agent('0\n1\n2\n3\nflock 9\n5\n6\n7\n8\n'))).toEqual({
    'nix/agents/x.sh': '0\n1\n2\n3\n5\n6\n7\n8\n',
  })
})

test.each([
  ['that has gone on', '1\n2\n3\nflock 8\n5\n6\n7\n'],
  ['that is gone', undefined],
])('a patch for a file %s is refused, because it would cut nothing', async (_, text) => {
  await expect(cutFiles(control, agent(text))).rejects.toThrow('its patch does not fit')
})

test.each([
  ['git', '\t'],
  ['diff', '\t2026-11-30 01:22:06.000000000 +0000'],
])('a file name with a space is read from a patch that %s wrote', async (_, end) => {
  const spaced = patch
    .replaceAll(/^(--- |\+\+\+ )(.*)$/gm, `$1$2${end}`)
    .replaceAll('x.sh', 'my x.sh')
  const cut = await cutFiles(readControl('lock', spaced), async (path) =>
    path === 'nix/agents/my x.sh' ? '1\n2\n3\nflock 9\n5\n6\n7\n' : undefined,
  )
  expect(Object.keys(cut)).toEqual(['nix/agents/my x.sh'])
})

test('a patch that cuts nothing is refused', async () => {
  const empty = readControl('lock', patch.split('\ndiff ')[0]!)
  await expect(cutFiles(empty, agent('1\n'))).rejects.toThrow('it cuts nothing')
})

const result: CaseResult = {
  ...{ family: 'auto-upgrade', case: 'overlap', title: '', hosts: ['sorrow'], reason: '' },
  ...{ state: 'failed', seconds: 1, seed: 1, oracle: [], replay: '' },
  checks: [{ name: 'outcome', held: false, expected: 'locked', found: 'upgraded' }],
}

test('a control is caught only if the case is red for the expected reason', () => {
  const state = (more: Partial<CaseResult>) => judgeControl(control, { ...result, ...more }).state
  expect(judgeControl(control, result)).toMatchObject({
    state: 'caught',
    found: 'outcome: upgraded',
  })
  expect(state({ state: 'passed', checks: [{ ...result.checks[0]!, held: true }] })).toBe(
    'stayed green',
  )
  const other = [{ ...result.checks[0]!, name: 'outcome of another' }]
  expect(state({ checks: other })).toBe('red for another reason')
  expect(state({ state: 'error' })).toBe('not run')
  expect(state({ state: 'skipped' })).toBe('not run')
})

test('a failed oracle row can be the expected reason, a wait that timed out never is', () => {
  const row = {
    host: 'sorrow',
    name: 'running',
    state: 'failed' as const,
    expected: 'a',
    found: 'b',
  }
  const byRow = { ...control, red: /^oracle sorrow running$/ }
  expect(judgeControl(byRow, { ...result, checks: [], oracle: [row] }).state).toBe('caught')
  const byWait = { ...control, red: /took longer/ }
  const reason = 'Waiting for `sorrow` to come back took longer than its limit of 60 s'
  expect(judgeControl(byWait, { ...result, checks: [], reason })).toMatchObject({
    state: 'not run',
    found: reason,
  })
})

test('a verdict other than caught or stayed green must come twice in a row', () => {
  const proof = (state: Proof['state']): Proof => ({
    ...{ control: 'lock', cut: '', case: '', hosts: [], seed: 1, seconds: 10, replay: '' },
    ...{ state, found: state },
  })
  const tries = (...states: Proof['state'][]): Proof[] => states.map((state) => proof(state))
  const other = 'red for another reason'
  expect(undecided(tries('caught'))).toBe(false)
  // if any check may be red, it may be red by chance, so one try does not decide
  expect(undecided(tries('caught'), anyCheck)).toBe(true)
  expect(undecided(tries('caught', 'caught'), anyCheck)).toBe(false)
  expect(undecided(tries('caught', 'stayed green'), anyCheck)).toBe(true)
  expect(undecided(tries('stayed green'), anyCheck)).toBe(false)
  expect(undecided(tries('stayed green'))).toBe(false)
  expect(undecided(tries('not run'))).toBe(true)
  expect(undecided(tries(other))).toBe(true)
  expect(undecided(tries(other, other))).toBe(false)
  expect(undecided(tries(other, 'caught'))).toBe(true)
  expect(undecided(tries(other, 'caught', 'caught'))).toBe(false)
  expect(settle(tries(other, 'caught', 'caught'))).toMatchObject({ state: 'caught', seconds: 30 })
  expect(settle(tries(other, other))).toMatchObject({ state: other })
  expect(settle(tries(other, 'caught', 'stayed green'))).toMatchObject({
    state: 'not run',
    found: expect.stringMatching(/^it differs from run to run: red for.*caught.*stayed green/),
  })
})

test('two controls of the same case have separate worlds and evidence directories', async () => {
  const both = controls().filter((one) => one.case === 'auto-upgrade/local-conflicts')
  expect(both.length).toBeGreaterThan(1)
  const [chosen] = choose(await families(), [both[0]!.case])
  const places = both.map(({ name, red }) =>
    placeOf(chosen!, { control: { name, red, replay: '' } }),
  )
  expect(new Set([...places, placeOf(chosen!, {})]).size).toBe(both.length + 1)
})

test('the replay command of a case is an existing recipe', async () => {
  const recipes = readFileSync(join(project, 'justfile'), 'utf8')
  for (const family of await families()) {
    const one = family.cases[0]!
    const [just, recipe, ...more] = replayOf({ family, one }, ['web'], 7).split(' ')
    expect([just, ...more]).toEqual(['just', 'web', '--case', one.name, '--seed', '7'])
    expect(recipes).toMatch(new RegExp(`^${recipe} .*:$`, 'm'))
  }
})

test('the replay command of a control has its VMs, its seed and the path of its patch', () => {
  expect(replayOfControl(control, ['sorrow'], 7)).toBe('just prove lock --host sorrow --seed 7')
  const own = { ...control, argument: '/tmp/my x.patch' }
  expect(replayOfControl(own, ['sorrow', 'torment'], 7)).toBe(
    "just prove '/tmp/my x.patch' --case auto-upgrade/overlap --host sorrow --host torment --seed 7",
  )
})

test('every verdict becomes a result of the run, even `not run`', () => {
  const proof = judgeControl(control, { ...result, state: 'failed' })
  expect(resultOf(proof, control.red)).toMatchObject({
    ...{ family: 'prove', case: 'lock', state: 'passed', reason: '' },
    checks: [{ name: 'red by', held: true, expected: '/^outcome$/' }],
  })
  expect(resultOf({ ...proof, state: 'not run', found: 'no disk' }, control.red)).toMatchObject({
    ...{ state: 'error', reason: 'not run: no disk' },
    checks: [{ held: false, found: 'no disk' }],
  })
  expect(resultOf({ ...proof, state: 'stayed green' }, control.red).state).toBe('failed')
})

test('a check that failed counts even if the case then throws', () => {
  const red = (): CaseResult => ({ ...structuredClone(result), state: 'passed' })
  const thrown = new TypeError("Cannot read properties of null (reading 'toplevel')")
  const one = red()
  expect(judgeThrown(one, thrown, 'x')).toContain('This is a bug in the lab')
  expect(one).toMatchObject({ state: 'failed', reason: 'outcome: expected locked, found upgraded' })
  expect(judgeControl(control, one).state).toBe('caught')

  const bug = { ...red(), checks: [] }
  judgeThrown(bug, thrown, 'x')
  expect(bug).toMatchObject({ state: 'error', reason: expect.stringContaining('bug in the lab') })
  const late = { ...red(), checks: [] }
  judgeThrown(late, new Failure('Waiting took too long'), 'x')
  expect(late).toMatchObject({ state: 'failed', reason: 'Waiting took too long' })
  const dead = red()
  judgeThrown(dead, new KernelFailed('the kernel of `sorrow` oopsed', 'oopsed', ''), 'x')
  expect(judgeControl(control, dead).state).toBe('not run')
})

test.each(['{"reason":"function \\\\"x\\\\" not defined"}', '{"phase"', '', 'null', '5'])(
  'agent output that is not JSON is a failed check, not a bug in the lab: %s',
  (text) => {
    const read = (): unknown => {
      try {
        return agentJson(text, 'the status of the sync of sorrow')
      } catch (thrown) {
        return thrown
      }
    }
    const name = 'the status of the sync of sorrow is JSON'
    const one: CaseResult = { ...structuredClone(result), state: 'passed', checks: [] }
    judgeThrown(one, read(), 'x')
    expect(one).toMatchObject({ state: 'failed', checks: [{ name, held: false }] })
    expect(judgeControl({ ...control, red: / is JSON$/ }, one).state).toBe('caught')
  },
)

describe('a patch from any path', () => {
  const dir = mkdtempSync(join(tmpdir(), 'patches-'))
  afterAll(() => rmSync(dir, { recursive: true }))
  const diff = `diff --git${patch.split('diff --git')[1]}`
  const put = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text)
    return join(dir, name)
  }

  test('needs no head if a case is named, and is then caught by any failed check', async () => {
    const own = controlFrom(put('my cut.patch', diff), 'auto-upgrade/good-commit')
    expect(own).toMatchObject({ name: 'my-cut', case: 'auto-upgrade/good-commit' })
    expect(judgeControl(own, result).state).toBe('caught')
    expect(await cutFiles(own, agent('1\n2\n3\nflock 9\n5\n6\n7\n'))).toHaveProperty([
      'nix/agents/x.sh',
    ])
  })

  test('is read with its own head, except that a named case overrides it', () => {
    const path = put('headed.patch', patch)
    expect(controlFrom(path, undefined)).toMatchObject({ case: 'auto-upgrade/overlap' })
    expect(controlFrom(path, 'auto-upgrade/timer')).toMatchObject({ case: 'auto-upgrade/timer' })
  })

  test('is refused without a case, with an invalid pattern, or if it does not exist', () => {
    const exit = (path: string): unknown => {
      try {
        return controlFrom(path, undefined)
      } catch (thrown) {
        return (thrown as Failure).exit
      }
    }
    expect(exit(put('bare.patch', diff))).toBe(2)
    expect(exit(put('odd.patch', patch.replace('^outcome$', '(')))).toBe(2)
    expect(exit(join(dir, 'none.patch'))).toBe(2)
  })

  test('may add and remove files', async () => {
    const text = `Case: a/b
--- /dev/null
+++ b/new.txt
@@ -0,0 +1 @@
+here
--- a/nix/agents/x.sh
+++ /dev/null
@@ -1 +0,0 @@
-1
`
    const both = controlFrom(put('files.patch', text), undefined)
    expect(await cutFiles(both, agent('1\n'))).toEqual({
      'new.txt': 'here\n',
      'nix/agents/x.sh': null,
    })
  })
})

test('a pattern that no check of the case can match is detected before the run', () => {
  const can = (red: RegExp, named = 'auto-upgrade/good-commit'): boolean =>
    canBeRed({ ...control, red, case: named })
  expect(can(/^status\.json names the commit$/)).toBe(true)
  expect(can(/upgrade: outcome$/)).toBe(true)
  expect(can(/^oracle \S+ running$/)).toBe(true)
  expect(can(/^oracle sorrow journal of this boot$/)).toBe(true)
  expect(can(/^round \d+ of \S+$/, 'concurrent-edits/same-second')).toBe(true)
  expect(can(/^outcom$/)).toBe(false)
  expect(can(/took longer than its limit/)).toBe(false)
})

const all = controls()
test.each(all.map((one) => [one.name, one] as const))(
  'the control %s applies to the current agents and modules, and the result parses',
  async (_, one) => {
    const cut = await cutFiles(one, async (path) => readFileSync(join(project, path), 'utf8'))
    for (const [path, text] of Object.entries(cut)) {
      expect(text).not.toBe(readFileSync(join(project, path), 'utf8'))
      // a cut that no longer parses would fail the evaluation, and no check
      const parse = path.endsWith('.nix') ? ['nix-instantiate', '--parse', '-'] : ['bash', '-n']
      execFileSync(parse[0]!, parse.slice(1), { input: String(text), stdio: 'pipe' })
    }
    expect(choose(await families(), [one.case])).toHaveLength(1)
    expect(canBeRed(one)).toBe(true)
  },
)

test('there are at least twelve controls', () => {
  expect(all.length).toBeGreaterThanOrEqual(12)
})

test('a miscalibrated clock is recognised by the kernel log', () => {
  const dir = mkdtempSync(join(tmpdir(), 'evidence-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  expect(clockRanWrong(dir)).toBe(false)
  writeFileSync(join(dir, 'clock.txt'), '')
  expect(clockRanWrong(dir)).toBe(false)
  writeFileSync(join(dir, 'clock.txt'), 'tsc: PIT calibration deviates from HPET: 201679 2596129\n')
  expect(clockRanWrong(dir)).toBe(true)
})

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { controls, cutFiles, judgeControl, readControl } from '../../../lib/scenario/control.ts'
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

test('the head says what is cut, which case must be red, and by what', () => {
  expect(control).toMatchObject({
    name: 'lock',
    cut: 'the lock of an upgrade',
    case: 'auto-upgrade/overlap',
  })
  expect(() => readControl('lock', patch.replace('Red: ', 'Rad: '))).toThrow('no `Red:`')
})

test('a cut changes the file as it is now, where lines have moved, too', async () => {
  expect(await cutFiles(control, agent('0\n1\n2\n3\nflock 9\n5\n6\n7\n8\n'))).toEqual({
    'nix/agents/x.sh': '0\n1\n2\n3\n5\n6\n7\n8\n',
  })
})

test.each([
  ['that has gone on', '1\n2\n3\nflock 8\n5\n6\n7\n'],
  ['that is gone', undefined],
])('a patch of a file %s is refused: it would cut nothing', async (_, text) => {
  await expect(cutFiles(control, agent(text))).rejects.toThrow('its patch does not fit')
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

test('caught is only what is red for the reason that was cut', () => {
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

test('a row of the oracle or a wait that took too long can be the reason', () => {
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
  expect(judgeControl(byWait, { ...result, checks: [], reason }).state).toBe('caught')
})

const all = controls()
test.each(all.map((one) => [one.name, one] as const))(
  'the control %s fits the agents as they are, and leaves programs that can be read',
  async (_, one) => {
    const cut = await cutFiles(one, async (path) => readFileSync(join(project, path), 'utf8'))
    for (const [path, text] of Object.entries(cut)) {
      expect(text).not.toBe(readFileSync(join(project, path), 'utf8'))
      if (path.endsWith('.sh')) execFileSync('bash', ['-n'], { input: String(text) })
    }
    expect(choose(await families(), [one.case])).toHaveLength(1)
  },
)

test('the nets that must be cut are', () => {
  expect(all.length).toBeGreaterThanOrEqual(12)
})

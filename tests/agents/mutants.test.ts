/**
 * A few mutants, end to end: the tests that run their lines kill those that make a difference, and an equivalent
 * one survives. `just mutate` judges all mutants.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { makeCopy, type Copy } from '../../lib/mutation/copy.ts'
import type { Kind } from '../../lib/mutation/edit.ts'
import { traceTests, type Traced } from '../../lib/mutation/map.ts'
import { mutantsOf, type Mutant } from '../../lib/mutation/mutant.ts'
import { meetTests, prepare } from '../../lib/mutation/trial.ts'
import { equivalents, type Verdict } from '../../lib/mutation/verdicts.ts'
import { project } from '../../lib/settings.ts'
import { missingForRoot } from './root.ts'

const file = 'nix/agents/reachability.sh'
const missing = await missingForRoot()
let mutants: Mutant[]
let copy: Copy | undefined
let traces: Traced[]
let cache: string | undefined

beforeAll(async () => {
  if (missing) return
  // a private cache, so that a run of `just mutate` does not wait for this test
  process.env['LAB_TEST_CACHE'] ??= join(tmpdir(), 'cache')
  cache = mkdtempSync(join(tmpdir(), 'mutants-'))
  process.env['LAB_CACHE'] = cache
  copy = await makeCopy()
  mutants = await mutantsOf(project, 'reachability', file)
  traces = await traceTests(
    ['tests/agents/reachability.test.ts'],
    async () => copy!,
    () => {},
  )
})
afterAll(async () => {
  await copy?.end()
  if (cache) rmSync(cache, { recursive: true })
})
beforeEach((context) => {
  if (missing) context.skip(missing)
})

const judged = async (kind: Kind, was: RegExp, instead: string): Promise<Verdict> => {
  const found = mutants.filter(
    (one) => one.kind === kind && was.test(one.was) && one.instead.trim() === instead,
  )
  expect(found).toHaveLength(1)
  return await meetTests(prepare(found[0]!, traces), traces, copy!)
}

test.each<[Kind, RegExp, string]>([
  ['statement', /^while :; do/, ':'],
  ['condition', /^\[\[ -n \$REACH_COMMAND \]\]$/, 'true'],
  ['guard', /^IFS=.*reach_next_to|^reach_is_named .* \|\| continue$/, 'continue'],
])('A test notices: %s %s => %s', async (kind, was, instead) => {
  const text = readFileSync(join(project, file), 'utf8')
  const { state, found } = await judged(kind, was, instead)
  expect(state).toBe('killed by tests')
  expect(found).toContain('A host that answers is reached')
  // the mutant was never in the working tree
  expect(readFileSync(join(project, file), 'utf8')).toBe(text)
})

test('A mutant that makes no difference survives, and is in the reviewed file', async () => {
  const idle = mutants.filter(
    (one) => one.kind === 'constant' && one.within === 'reachable' && one.was === '1',
  )
  const named = idle.filter(({ id }) => equivalents().has(id))
  expect(named).toHaveLength(1)
  const verdict = await meetTests(prepare(named[0]!, traces), traces, copy!)
  expect(verdict).toMatchObject({ state: 'alive', found: '' })
})

test('Ending a copy removes everything except its traces', async () => {
  await copy!.end()
  const place = join(process.env['LAB_CACHE']!, 'mutation')
  expect(existsSync(join(place, 'copy'))).toBe(false)
  expect(existsSync(join(place, 'tmp'))).toBe(false)
  expect(existsSync(join(place, 'traces'))).toBe(true)
})

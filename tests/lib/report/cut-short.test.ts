import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { carriedOn, lastCutShort, leftOf } from '../../../lib/report/cut-short.ts'
import { writePlan, type Plan } from '../../../lib/report/plan.ts'
import { holdRecord, openRecord, readEvents, reopenRecord } from '../../../lib/report/record.ts'
import { notRun, type CaseResult, type CaseState } from '../../../lib/report/result.ts'
import { spans } from '../../../lib/report/timeline.ts'
import { makeLab } from '../../lab.ts'

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'cut-'))
  vi.stubEnv('LAB_HOME', home)
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

const cases = ['f/a', 'f/b', 'f/c', 'f/d']
const plan: Plan = {
  ...{ name: 'gitops', hosts: ['sorrow'], seed: 7, flake: 'f00', dotfiles: 'd00', lab: '1ab' },
  ...{ ground: 'tcg, guest debian', asked: cases, cases },
}

const result = (name: string, state: CaseState, reason = ''): CaseResult => ({
  ...{ family: 'f', case: name, title: name, hosts: ['sorrow'], state, reason, seconds: 1 },
  ...{ seed: 7, oracle: [], replay: '' },
  checks: [{ name: 'one', held: state === 'passed', expected: 'x', found: 'x' }],
})

/** Writes the record of a run in LAB_HOME. */
function runOf(id: string, more: Partial<Plan>, results?: CaseResult[]): string {
  const dir = join(home, 'runs', id)
  mkdirSync(dir, { recursive: true })
  writePlan(dir, { ...plan, ...more })
  writeFileSync(join(dir, 'events.jsonl'), '')
  if (results) writeFileSync(join(dir, 'results.json'), JSON.stringify(results))
  return dir
}

test('the last run that did not end is found, with the results it has', () => {
  runOf('1', {}, [])
  const cut = runOf('2', {}, [
    result('a', 'passed'),
    result('b', 'failed', 'it is red'),
    result('c', 'error', 'the lab could not'),
    result('d', 'error', notRun),
  ])
  runOf('3', { name: 'prove' })
  runOf('4', { ended: { troubles: [] } })
  // a record that was only just created
  mkdirSync(join(home, 'runs/5'))
  const found = lastCutShort(['gitops'])
  expect(found.dir).toBe(cut)
  expect(found.results.map((one) => one.case)).toEqual(['a', 'b'])
  expect(leftOf(found)).toEqual(['f/c', 'f/d'])
})

test('for a run killed before any case ended all cases are left', () => {
  runOf('1', {})
  expect(leftOf(lastCutShort(['gitops']))).toEqual(cases)
})

test('if no run was cut short, resume is refused', () => {
  expect(() => lastCutShort(['gitops'])).toThrow('Cannot carry on: no run here was cut short')
  runOf('1', { ended: { troubles: [] } })
  expect(() => lastCutShort(['gitops'])).toThrow('Cannot carry on: no run here was cut short')
})

test.each([
  ['flake', 'f01', 'flakes, or of different commits of one (f00 and f01)'],
  ['dotfiles', 'd01', 'dotfiles (d00 and d01)'],
  ['lab', '2ab', 'versions of the lab (1ab and 2ab)'],
])('resume is refused if the run had another %s', (what, other, words) => {
  runOf('1', {}, [])
  const before = lastCutShort(['gitops'])
  expect(() => carriedOn(before, { ...plan, [what]: other })).toThrow(words)
  expect(carriedOn(before, { ...plan, cases: ['f/d'], ground: 'kvm, guest debian' })).toEqual({
    ...before.plan,
    ground: 'tcg, guest debian; kvm, guest debian',
  })
})

test('a resumed record continues the times and event numbers, and closes open spans', () => {
  vi.useFakeTimers({ toFake: ['performance'] })
  const first = openRecord('gitops')
  vi.advanceTimersByTime(10_000)
  first.note({ kind: 'run', name: 'gitops', phase: 'begin' })
  first.note({ kind: 'case', name: 'f/a', host: 'sorrow', phase: 'begin' })
  vi.advanceTimersByTime(20_000)
  first.note({ kind: 'say', name: 'a word', host: 'sorrow' })
  const file = join(first.dir, 'events.jsonl')
  writeFileSync(file, '{"id": 4, "ki', { flag: 'a' })
  vi.advanceTimersByTime(500_000)
  const again = reopenRecord(first.dir)
  vi.advanceTimersByTime(5000)
  again.note({ kind: 'case', name: 'f/b', host: 'sorrow', phase: 'begin' })
  again.settle()
  vi.useRealTimers()
  expect(again.id).toBe(first.id)
  expect(readFileSync(file, 'utf8')).not.toContain('"ki{')
  const events = readEvents(first.dir)
  expect(events).toEqual(again.events)
  expect(events.map(({ id, t }) => [id, t])).toEqual([
    [1, 10],
    [2, 10],
    [3, 30],
    [4, 30],
    [5, 35],
  ])
  const [of] = spans(events).filter(({ name }) => name === 'f/a')
  expect(of).toMatchObject({ from: 10, to: 30, state: 'cut short' })
})

test('an incomplete first line is dropped when a record is resumed', () => {
  const dir = runOf('1', {}, [])
  writeFileSync(join(dir, 'events.jsonl'), '{"id": 1, "ki')
  const record = reopenRecord(dir)
  record.note({ kind: 'say', name: 'a word' })
  expect(readEvents(dir)).toEqual(record.events)
})

test('a run that another process is writing cannot be resumed', async () => {
  const dir = runOf('1', {}, [])
  const hold = await holdRecord(dir)
  await expect(holdRecord(dir)).rejects.toThrow(`Cannot carry on \`${dir}\``)
  hold.release()
  ;(await holdRecord(dir)).release()
})

test.each([
  [['--seed', '3'], '--seed'],
  [['--case', 'panic'], '--case'],
  [['--shard', '1/2'], '--shard'],
  [['break-boot'], 'a family'],
])('resume refuses an argument that the run has already fixed: %s', async (args, named) => {
  const lab = makeLab()
  const { code, stderr } = await lab.task('pipelines/gitops', '--resume', ...args)
  rmSync(lab.dir, { recursive: true })
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: `pipelines/gitops: Cannot use ${named} with --resume\n  hint: The run that is carried on has already fixed this: leave it out\n`,
  })
})

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { openRecord, type RunRecord } from '../../../lib/report/record.ts'
import type { CaseResult } from '../../../lib/report/result.ts'
import { runCase } from '../../../lib/scenario/case.ts'
import type { Case, Scene } from '../../../lib/scenario/family.ts'
import { labSubject as subject } from '../../../lib/scenario/subject-lab.ts'

let home: string
let record: RunRecord
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'case-'))
  vi.stubEnv('LAB_HOME', home)
  record = openRecord('x')
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

/** Runs a case that needs no VM. */
function ran(run: Case['run']): Promise<CaseResult> {
  const dir = join(home, 'srv/.worlds/start')
  for (const name of ['config', 'dotfiles'])
    execFileSync('git', ['init', '--quiet', '--bare', join(dir, `${name}.git`)])
  const from = { ...{ dir, branch: 'main', paths: {}, config: '', dotfiles: '' }, guest: {} }
  const stage = {
    ...{ record, seed: 1, results: [], subject, flags: '', from, prepared: new Map() },
    ground: { accelerator: { patience: 1 }, store: [] },
  }
  const one: Case = { name: 'a', title: 'A', promise: 'deploy', run }
  return runCase(
    { family: { name: 'f', describe: '', cases: [one] }, one },
    [],
    stage as never,
    () => {},
  )
}

test('a check of an undefined value always fails', async () => {
  const nothing = undefined as unknown as string
  const held: boolean[] = []
  const { state } = await ran(async ({ check }: Scene) => {
    held.push(
      check('any text', /./, undefined),
      check('all but that', /^(?!.*PROBLEM)/s, undefined),
      check('any text, of null', /./, null),
      check('the same nothing', nothing, undefined),
    )
  })
  expect({ state, held }).toEqual({ state: 'failed', held: [false, false, false, false] })
  const well = await ran(async ({ check }: Scene) => {
    check('null is a value', null, null)
    check('a number has a text', /^1$/, 1)
  })
  expect(well).toMatchObject({ state: 'passed', reason: '' })
})

test('a failed case stays failed if its evidence cannot be collected', async () => {
  writeFileSync(join(record.dir, 'evidence'), 'in the way')
  const { state, reason } = await ran(async ({ check }: Scene) => void check('one', 1, 2))
  expect(state).toBe('failed')
  expect(reason).toMatch(/^one: expected 1, found 2; its evidence is not whole: /)
})

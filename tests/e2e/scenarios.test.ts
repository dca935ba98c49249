/**
 * One case of every family and four controls, on two VMs that are made for it: what `just gitops-test`
 * and `just prove` run in full.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeLab, type Lab } from '../lab.ts'
import type { CaseResult } from '../../lib/report/result.ts'
import type { Proof } from '../../lib/scenario/control.ts'
import type { Verified } from '../../tasks/verify.ts'

let lab: Lab
beforeAll(() => (lab = makeLab()))
afterAll(() => lab.remove())

const cases = [
  'auto-upgrade/unit-fails',
  'break-boot/panic',
  'chaos-network/cut',
  'concurrent-edits/same-line',
  'full-workflow/workflow',
]

test('a case of every family holds, and so does the oracle after it', async () => {
  const flags = cases.flatMap((name) => ['--case', name])
  const { code, stdout, stderr } = await lab.task('pipelines/gitops', '--json', ...flags)
  const { run, results } = JSON.parse(stdout) as { run: string; results: CaseResult[] }
  const seen = Object.fromEntries(
    results.map(({ family, case: name, state, reason }) => [`${family}/${name}`, [state, reason]]),
  )
  expect(seen, stderr).toEqual(Object.fromEntries(cases.map((name) => [name, ['passed', '']])))
  expect(code).toBe(0)
  // one that asserted nothing would pass as well
  for (const { checks, oracle } of results) {
    expect(checks.length).toBeGreaterThan(0)
    expect(oracle.length).toBeGreaterThan(10)
  }
  for (const file of ['events.jsonl', 'junit.xml', 'report.html']) {
    expect(existsSync(join(run, file))).toBe(true)
  }
  expect(readFileSync(join(run, 'junit.xml'), 'utf8')).toContain(`tests="${cases.length}"`)

  // the VMs are left as they were before, with the flake's own generation
  const verified = JSON.parse((await lab.task('verify', '--json')).stdout) as Verified[]
  expect(verified).toHaveLength(2)
  for (const { host, results: rows } of verified) {
    const state = (name: string) => rows.find(({ check }) => check === name)?.state
    expect([host, state('running generation'), state('system profile')]).toEqual([
      host,
      'pass',
      'pass',
    ])
  }
})

// the first two are of one case, and run side by side
const controls = ['conflict-check', 'rollback-repository', 'rejected-generation', 'lock']

test('a safety net that is cut is seen, for the reason that it was cut', async () => {
  const { code, stdout, stderr } = await lab.task('prove', '--json', ...controls)
  const { run, proofs } = JSON.parse(stdout) as { run: string; proofs: Proof[] }
  const seen = Object.fromEntries(proofs.map(({ control, state }) => [control, state]))
  const found = JSON.stringify(proofs, null, 2)
  expect(seen, found + stderr).toEqual(Object.fromEntries(controls.map((name) => [name, 'caught'])))
  expect(code).toBe(0)
  expect(JSON.parse(readFileSync(join(run, 'proofs.json'), 'utf8'))).toEqual(proofs)
  const of = (name: string) => proofs.find(({ control }) => control === name)!
  expect(of('conflict-check').case).toBe(of('rollback-repository').case)
  expect(of('conflict-check').evidence).not.toBe(of('rollback-repository').evidence)
  for (const { hosts, evidence, replay } of proofs) {
    expect(replay).toContain(`--host ${hosts[0]} --seed `)
    expect(existsSync(join(evidence!, hosts[0]!, 'journal.txt'))).toBe(true)
  }
})

test('a baseline is the same whatever VMs are in hand', async () => {
  const baseline = join(lab.dir, 'home/vms/sorrow/baseline.json')
  const before = readFileSync(baseline, 'utf8')
  const flags = ['sorrow', '--case', 'syntax-error', '--json']
  const { code, stdout } = await lab.task('auto-upgrade', ...flags)
  expect(code, stdout).toBe(0)
  expect(readFileSync(baseline, 'utf8')).toBe(before)
})

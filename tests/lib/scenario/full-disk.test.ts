import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { CaseResult } from '../../../lib/report/result.ts'
import { onSmallDisk } from '../../small-disk.ts'

test('a case for which there is no room is an error of the lab, and touches no VM', () => {
  const dir = mkdtempSync(join(tmpdir(), 'full-disk-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const out = onSmallDisk(
    dir,
    64,
    `import { existsSync } from 'node:fs'
import { openRecord } from '#/lib/report/record.ts'
import { runCase } from '#/lib/scenario/case.ts'
const vm = { host: 'sorrow', user: 'rain' }
const stage = {
  ...{ record: openRecord('x'), ground: { accelerator: { patience: 1 } }, seed: 1, results: [] },
  prepared: new Map([['sorrow', { vm, argv: [], tag: 'lab-x', toplevel: '/x' }]]),
}
let ran = false
const one = { name: 'a', title: 'A', run: async () => { ran = true } }
const result = await runCase({ family: { name: 'f', cases: [one] }, one }, ['sorrow'], stage as never, () => {})
console.log(JSON.stringify({ ran, result, evidence: existsSync(stage.record.dir + '/evidence') }))`,
  )
  const { ran, result, evidence } = JSON.parse(out) as {
    ran: boolean
    result: CaseResult
    evidence: boolean
  }
  expect({ ran, evidence, state: result.state }).toEqual({
    ran: false,
    evidence: false,
    state: 'error',
  })
  expect(result.reason).toMatch(/^Cannot run `f\/a`: it wants 0\.3 GiB and `.*` has 0\.1 GiB left$/)
})

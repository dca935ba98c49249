import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { CaseResult } from '../../../lib/report/result.ts'
import { onSmallDisk } from '../../small-disk.ts'

test('if the disk has no room for a case, it is an error of the lab, and no VM is touched', () => {
  const dir = mkdtempSync(join(tmpdir(), 'full-disk-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const out = onSmallDisk(
    dir,
    64,
    `import { existsSync } from 'node:fs'
import { openRecord } from '#/lib/report/record.ts'
import { runCase } from '#/lib/scenario/case.ts'
import { labSubject as subject } from '#/lib/scenario/subject-lab.ts'
const vm = { host: 'sorrow', user: 'rain' }
const stage = {
  ...{ record: openRecord('x'), ground: { accelerator: { patience: 1 } }, seed: 1, results: [], subject, flags: '' },
  prepared: new Map([['sorrow', { vm, argv: [], tag: 'lab-x', toplevel: '/x' }]]),
}
let ran = false
const one = { name: 'a', title: 'A', promise: 'deploy', run: async () => { ran = true } }
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

test('a case that fills the disk ends at once as an error of the lab, and the run still has its report', () => {
  const dir = mkdtempSync(join(tmpdir(), 'full-disk-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const out = onSmallDisk(
    dir,
    400,
    `import { appendFileSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { openRecord } from '#/lib/report/record.ts'
import { runCase } from '#/lib/scenario/case.ts'
import { labSubject as subject } from '#/lib/scenario/subject-lab.ts'
import { writeReports } from '#/lib/report/reports.ts'
const home = process.env.LAB_HOME
const from = { dir: join(home, 'srv/.worlds/start'), branch: 'main', paths: {}, config: '', dotfiles: '' }
mkdirSync(from.dir, { recursive: true })
const stage = {
  ...{ record: openRecord('x'), ground: { accelerator: { patience: 4 } }, seed: 1, results: [], subject, flags: '', from },
  prepared: new Map(),
}
const fill = async () => {
  try {
    for (;;) appendFileSync(join(home, 'fill'), Buffer.alloc(2 ** 16))
  } catch {}
  // wait for ever, as a guest with a full disk does
  await new Promise(() => {})
}
const one = { name: 'a', title: 'A', promise: 'deploy', run: fill }
const began = performance.now()
const result = await runCase({ family: { name: 'f', cases: [one] }, one }, [], stage as never, () => {})
const took = (performance.now() - began) / 1000
const page = { id: 'x', hosts: [], seed: 1, ground: '', results: [result], events: stage.record.events }
const troubles = writeReports(stage.record, page)
console.log(JSON.stringify({ took, result, troubles, files: readdirSync(stage.record.dir) }))
process.exit()`,
  )
  const { took, result, troubles, files } = JSON.parse(out) as {
    took: number
    result: CaseResult
    troubles: unknown[]
    files: string[]
  }
  expect(result).toMatchObject({ state: 'error', reason: 'The disk of LAB_HOME is full' })
  expect(took).toBeLessThan(15)
  expect(troubles).toEqual([])
  expect(files.toSorted()).toEqual(['events.jsonl', 'junit.xml', 'report.html', 'results.json'])
})

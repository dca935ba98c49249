/** Cases that are shared by the VMs and a copy of them, as `--jobs 2` has it. */
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { processesOf } from '../../lib/process.ts'
import { waitFor } from '../../lib/retry.ts'
import { readEvents } from '../../lib/report/record.ts'
import type { CaseResult } from '../../lib/report/result.ts'
import { makeLab, type Lab } from '../lab.ts'

let lab: Lab
beforeAll(() => (lab = makeLab()))
afterAll(() => lab.remove())

// the copy has one of the first two, as the VMs themselves are both taken by the other
const cases = [
  'auto-upgrade/untracked-file',
  'concurrent-edits/different-files',
  'concurrent-edits/same-line',
]
const flags = cases.flatMap((name) => ['--case', name])

const copiesDir = (): string => join(lab.env['LAB_HOME']!, 'copies')
const uuids = new Set<string>()

/** What there is of copies: their directories, and the programs that run for them. */
function left(): { directories: string[]; programs: string[] } {
  const all = existsSync(copiesDir()) ? readdirSync(copiesDir()) : []
  const directories = all.filter((name) => name !== 'lock')
  for (const host of ['sorrow', 'torment']) {
    for (const name of directories) {
      const record = join(copiesDir(), name, 'vms', host, 'vm.json')
      if (existsSync(record)) uuids.add(JSON.parse(readFileSync(record, 'utf8')).uuid)
    }
  }
  // QEMU and what it starts have the path on their command lines, and a keeper the UUID
  const programs = [`${copiesDir()}/`, ...uuids].flatMap((words) =>
    processesOf(words).map(({ pid, program }) => `${pid} ${program}`),
  )
  return { directories, programs: [...new Set(programs)] }
}

const qemus = (): string[] => left().programs.filter((one) => one.includes('qemu-system'))

/** What QEMU has started for a guest ends a moment after it. */
async function nothingIsLeft(): Promise<void> {
  const gone = (): boolean => Object.values(left()).flat().length === 0
  await waitFor('nothing to be left', 5, gone).catch(() => {})
  expect(left()).toEqual({ directories: [], programs: [] })
}

test('a copy takes its part of the cases, is shown meanwhile, and is gone at the end', async () => {
  const child = lab.start('pipelines/gitops', '--json', '--jobs', '2', '--seed', '7', ...flags)
  const ended = once(child, 'close')
  const [stdout, stderr] = [text(child.stdout!), text(child.stderr!)]
  const shown = await waitFor(
    'the copy to be shown',
    900,
    async () => {
      if (qemus().length < 2) return undefined
      const vms = JSON.parse((await lab.task('status', '--json')).stdout) as Record<
        string,
        string
      >[]
      return vms.filter(({ state }) => state === 'running').length === 4 && vms
    },
    { every: 2 },
  )
  expect(shown.map(({ host, copy }) => [host, copy])).toEqual([
    ['sorrow', undefined],
    ['torment', undefined],
    ['sorrow', 1],
    ['torment', 1],
  ])
  const distinct = (key: string): number => new Set(shown.map((vm) => vm[key])).size
  expect([distinct('uuid'), distinct('port'), distinct('pid'), distinct('dir')]).toEqual([
    4, 4, 4, 4,
  ])

  const [code] = (await ended) as [number]
  const { run, results } = JSON.parse(await stdout) as { run: string; results: CaseResult[] }
  expect(
    results.map((one) => [`${one.family}/${one.case}`, one.state, one.reason]),
    await stderr,
  ).toEqual(cases.map((name) => [name, 'passed', '']))
  expect(code).toBe(0)
  for (const { checks, oracle } of results) {
    expect(checks.length).toBeGreaterThan(0)
    expect(oracle.length).toBeGreaterThan(10)
  }
  const begun = readEvents(run).filter(({ kind, phase }) => kind === 'case' && phase === 'begin')
  const ran = begun.map(({ hosts }) => hosts)
  expect(ran).toContainEqual(['sorrow', 'torment'])
  expect(ran).toContainEqual(['sorrow (copy 1)', 'torment (copy 1)'])
  const report = readFileSync(join(run, 'report.html'), 'utf8')
  expect(report).toMatch(/torment \(copy 1\) <tspan class="lane">busy \d+ %</)
  await nothingIsLeft()
})

test('what a killed run has left is shown, and ended by the next one, whose own Ctrl-C ends', async () => {
  const command = ['pipelines/gitops', '--jobs', '2', ...flags] as const
  await lab.killAt(/torment \(copy 1\)/, 'SIGKILL', ...command)
  expect(left().directories).toEqual(['1'])
  expect(qemus()).toHaveLength(2)
  expect(uuids.size).toBe(4)
  const { stdout } = await lab.task('status')
  expect(stdout).toMatch(/^torment \(copy 1\) +running/m)
  expect(stdout).toMatch(/^copy 1 was left by a run that was killed: just down /m)

  const next = await lab.killAt(/torment \(copy 1\)/, 'SIGINT', ...command)
  expect(next.code).toBe(130)
  expect(next.stderr).toMatch(/^Ended and deleted what a run that was killed has left: copy 1$/m)
  expect(next.stderr).toMatch(/^pipelines\/gitops: Cut short: .*; sorrow and torment still run /m)
  await nothingIsLeft()
})

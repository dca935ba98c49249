/**
 * One case of every family and two controls on two VMs, a sample of what `just gitops-test` and `just prove` run
 * in full. Also parts of a run, as in a CI, and cases shared between the VMs and a copy of them, as with
 * `--jobs 2`.
 */
import { once } from 'node:events'
import { cpSync, existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { processesOf } from '../../lib/process.ts'
import { readEvents } from '../../lib/report/record.ts'
import { waitFor } from '../../lib/retry.ts'
import { run as runCommand } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { makeLab, type Lab } from '../lab.ts'
import { github, linesOf } from '../workflows.ts'
import type { CaseResult } from '../../lib/report/result.ts'
import type { Proof } from '../../lib/scenario/control.ts'
import type { Verified } from '../../tasks/verify.ts'

let lab: Lab
beforeAll(() => (lab = makeLab()))
afterAll(() => lab.remove())

const cases = [
  'auto-upgrade/cache-wrong',
  'break-boot/garbage-kernel',
  'chaos-network/rate',
  'concurrent-edits/put-aside',
  'full-workflow/workflow',
]

test('a case of every family passes, including the oracle', async () => {
  const flags = cases.flatMap((name) => ['--case', name])
  const { code, stdout, stderr } = await lab.task('pipelines/gitops', '--json', ...flags)
  const { run, results } = JSON.parse(stdout) as { run: string; results: CaseResult[] }
  const seen = Object.fromEntries(
    results.map(({ family, case: name, state, reason }) => [`${family}/${name}`, [state, reason]]),
  )
  expect(seen, stderr).toEqual(Object.fromEntries(cases.map((name) => [name, ['passed', '']])))
  expect(code).toBe(0)
  // a case that asserted nothing would pass as well
  for (const { checks, oracle } of results) {
    expect(checks.length).toBeGreaterThan(0)
    expect(oracle.length).toBeGreaterThan(10)
  }
  for (const file of ['events.jsonl', 'junit.xml', 'report.html']) {
    expect(existsSync(join(run, file))).toBe(true)
  }
  expect(readFileSync(join(run, 'junit.xml'), 'utf8')).toContain(`tests="${cases.length}"`)

  // the run restores the VMs to the flake's own generation
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

// both cut a net of the same case, and they run side by side
const controls = ['conflict-check', 'rollback-repository']

test('a disabled safety net is caught, for the expected reason', async () => {
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

// the lines of the workflow that run one part; npm ci has already run before the tests
test('the commands of the CI workflows run and merge a part, and the baseline does not depend on which VMs are chosen', async () => {
  const baseline = join(lab.dir, 'home/vms/sorrow/baseline.json')
  const before = readFileSync(baseline, 'utf8')
  const [PARTS, MERGED] = [join(lab.dir, 'parts'), join(lab.dir, 'merged')]
  const two = ['auto-upgrade/syntax-error', 'auto-upgrade/untracked-file']
  const WHAT = ['--host sorrow', ...two.map((name) => `--case ${name}`)].join(' ')
  const env = { ...process.env, ...lab.env, WHAT, SHARD: '1/1', SEED: '7', PARTS, MERGED }
  const runLines = async (job: string): Promise<void> => {
    for (const line of linesOf(github, job).filter((each) => each !== 'npm ci')) {
      const bash = ['--noprofile', '--norc', '-eo', 'pipefail', '-c', line]
      const { code, stdout, stderr } = await runCommand('bash', bash, {
        ...{ cwd: project, env, timeout: 600, allow: [1, 2, 3] },
      })
      expect(code, `${line}\n${stdout}\n${stderr}`).toBe(0)
    }
  }
  await runLines('cases')
  expect(readFileSync(baseline, 'utf8')).toBe(before)

  // the artifact carries this over to the other job
  const runs = join(lab.dir, 'home/runs')
  const [record] = readdirSync(runs).filter((id) => id.endsWith('-gitops-1of1'))
  cpSync(join(runs, record!), join(PARTS, 'run-0', record!), { recursive: true })
  await runLines('report')
  const results = JSON.parse(readFileSync(join(MERGED, 'results.json'), 'utf8')) as CaseResult[]
  const seen = results.map(({ family, case: name, state, seed }) => [
    `${family}/${name}`,
    state,
    seed,
  ])
  expect(seen).toEqual(two.map((name) => [name, 'passed', 7]))
  expect(readFileSync(join(MERGED, 'junit.xml'), 'utf8')).toContain('tests="2" failures="0"')
  expect(readFileSync(join(MERGED, 'report.html'), 'utf8')).toContain('part 1/1 sorrow')
})

// two of these need two VMs: one of them takes both VMs of the lab, so the copy gets the other
const shared = [
  'auto-upgrade/untracked-file',
  'concurrent-edits/different-files',
  'concurrent-edits/same-line',
]
const flags = shared.flatMap((name) => ['--case', name])

const copiesDir = (): string => join(lab.env['LAB_HOME']!, 'copies')
const uuids = new Set<string>()

/** What exists of copies: their directories, and the programs that run for them. */
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

/** Waits a little, because programs that QEMU started for a guest end a moment after it. */
async function nothingIsLeft(): Promise<void> {
  const gone = (): boolean => Object.values(left()).flat().length === 0
  await waitFor('nothing to be left', 5, gone).catch(() => {})
  expect(left()).toEqual({ directories: [], programs: [] })
}

test('a copy runs its share of the cases, is listed meanwhile, and is removed at the end', async () => {
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
  ).toEqual(shared.map((name) => [name, 'passed', '']))
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

test('the leftovers of a killed run are listed, and ended by the next run, which Ctrl-C ends', async () => {
  const command = ['pipelines/gitops', '--jobs', '2', ...flags] as const
  await lab.killAt(/torment \(copy 1\)/, 'SIGKILL', ...command)
  expect(left().directories).toEqual(['1'])
  expect(qemus()).toHaveLength(2)
  expect(uuids.size).toBe(4)
  const { stdout } = await lab.task('status')
  expect(stdout).toMatch(/^torment \(copy 1\) +running/m)
  expect(stdout).toMatch(/^copy 1 was left by a killed run: just down /m)

  const next = await lab.killAt(/torment \(copy 1\)/, 'SIGINT', ...command)
  expect(next.code).toBe(130)
  expect(next.stderr).toMatch(/^Ended and deleted what a run that was killed has left: copy 1$/m)
  expect(next.stderr).toMatch(/^pipelines\/gitops: Cut short: .*; sorrow and torment still run /m)
  await nothingIsLeft()
})

import { Exit, usage as usageFailure, type ExitCode } from '../lib/failure.ts'
import type { Copy } from '../lib/mutation/copy.ts'
import type { Covered } from '../lib/mutation/coverage.ts'
import type { Hits } from '../lib/mutation/trace.ts'
import { project } from '../lib/settings.ts'
import { table } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'

export const name = 'coverage'
export const describe = 'Show which lines and branches of the agents the tests and scenarios run'
export const usage = '[agent..]'
export const positionals = {
  agent: { describe: 'Agents by their file in nix/agents; default: all', array: true },
}
export const options = {
  tests: {
    type: 'string',
    array: true,
    describe: 'Run only these test files, such as tests/agents/golden.test.ts',
  },
  case: {
    type: 'string',
    array: true,
    describe: 'Run these cases in VMs first, as <family>/<case>',
  },
  scenarios: { type: 'boolean', describe: 'Run all cases in VMs first' },
  host: {
    type: 'string',
    array: true,
    describe: 'VMs for cases, two at most; default: the first of the flake',
  },
  seed: { type: 'number', describe: 'Seed of the random choices in the cases' },
  json: { type: 'boolean', describe: 'Print data on standard output' },
} as const
export const under = [
  'vitest run tests/agents   in a copy of the project, with agents traced by bash -x',
  'tsx tasks/<family>.ts --case <case>   with such agents in the flake of the VMs',
]
export const examples: [string, string][] = [
  ['just coverage', 'Run all tests of the agents; cases that were traced before count as well'],
  ['just coverage --scenarios', 'Run all cases first, which takes as long as just gitops-test'],
  ['just coverage golden-lib --case break-boot/panic', 'One agent, after one case'],
]

export async function run(args: Args): Promise<ExitCode> {
  const say = (line: string): void => void process.stderr.write(`${line}\n`)
  const { keptTraces, traceCases } = await import('../lib/mutation/guest.ts')
  const { merge } = await import('../lib/mutation/trace.ts')
  const files = await choose(args['agent'])
  const inVms = Boolean(args['case'] || args['scenarios'])
  const idle = ['host', 'seed'].find((flag) => args[flag] !== undefined)
  if (idle !== undefined && !inVms)
    throw usageFailure(
      `Cannot use --${idle} without cases`,
      'Tests alone run in no VM: --case NAME or --scenarios',
    )
  await refuseTests(args['tests'])
  // cases and tests take hours, so an unwritable directory is reported first
  const { privateDirectory } = await import('../lib/directory.ts')
  const { labHome } = await import('../lib/settings.ts')
  privateDirectory(labHome())
  let code: ExitCode = Exit.held
  if (inVms) {
    const { families } = await import('./pipelines/families.ts')
    const given = { hosts: args['host'], seed: args['seed'], json: args['json'] }
    const { exitOf, summarize: summarizeRun } = await import('../lib/report/summary.ts')
    const ended = await traceCases(args['case'] ?? [], await families(), given)
    code = given.json ? exitOf(ended) : summarizeRun(ended, false)
  }
  const byTests = await ranByTests(args['tests'], say)
  const byScenarios: Hits = {}
  const cases = keptTraces()
  for (const hits of cases.values()) merge(byScenarios, hits)
  const { covered } = await import('../lib/mutation/coverage.ts')
  const { readFileSync } = await import('node:fs')
  const all = await Promise.all(
    files.map((file) =>
      covered(file, readFileSync(`${project}/nix/agents/${file}`, 'utf8'), byTests, byScenarios),
    ),
  )
  await summarize(all, cases.size, Boolean(args['json']))
  return code
}

/** @throws Failure (usage) for an unknown agent */
async function choose(agents: string[] | undefined): Promise<string[]> {
  const { programs } = await import('../lib/mutation/mutant.ts')
  const { unknown } = await import('../lib/nearest.ts')
  // only bash scripts are traced
  const known = [...programs(project)]
    .filter(([agent, file]) => file.endsWith('.sh') && agent !== 'check-secrets')
    .map(([agent]) => agent)
  for (const agent of agents ?? [])
    if (!known.includes(agent))
      throw unknown('an agent', agent, known, `The agents: ${known.join(' ')}`)
  return (agents?.length ? [...new Set(agents)] : known).map((agent) => `${agent}.sh`)
}

/** @throws Failure (usage) for an unknown test file */
async function refuseTests(files: string[] = []): Promise<void> {
  if (files.length === 0) return
  const { agentTests } = await import('../lib/mutation/map.ts')
  const { unknown } = await import('../lib/nearest.ts')
  const known = agentTests()
  for (const file of files)
    if (!known.includes(file))
      throw unknown('a test file of agents', file, known, 'They are in tests/agents')
}

async function ranByTests(given: string[] | undefined, say: (line: string) => void): Promise<Hits> {
  const { makeCopy } = await import('../lib/mutation/copy.ts')
  const { agentTests, traceTests } = await import('../lib/mutation/map.ts')
  const { merge } = await import('../lib/mutation/trace.ts')
  let copy: Copy | undefined
  const all: Hits = {}
  try {
    const files = given ?? agentTests()
    const traces = await traceTests(files, async () => (copy ??= await makeCopy()), say)
    for (const { hits } of traces) for (const one of Object.values(hits)) merge(all, one)
  } finally {
    await copy?.end()
  }
  return all
}

async function summarize(all: Covered[], cases: number, json: boolean): Promise<void> {
  const { coveragePage, rows, totals } = await import('../lib/mutation/coverage-page.ts')
  const path = await import('node:path')
  const { labHome } = await import('../lib/settings.ts')
  const { writeFile } = await import('../lib/write-file.ts')
  const report = path.join(labHome(), 'coverage.html')
  writeFile(report, coveragePage(all, cases), { over: 'any', mode: 0o600 })
  if (json) console.log(JSON.stringify({ report, cases, ...totals(all) }, null, 2))
  else {
    console.log(table(rows(all)))
    console.log(`traced cases: ${cases}\nreport: ${report}`)
  }
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

import { Exit, usage as usageFailure, type ExitCode } from '../lib/failure.ts'
import type { Copy } from '../lib/mutation/copy.ts'
import type { Mutant } from '../lib/mutation/mutant.ts'
import type { Judged } from '../lib/mutation/tally.ts'
import type { Asked, Verdict } from '../lib/mutation/verdicts.ts'
import { unknown as unknownName } from '../lib/nearest.ts'
import { project } from '../lib/settings.ts'
import { table } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'

export const name = 'mutate'
export const describe =
  'Change the agents in small ways and check that the tests and scenarios notice'
export const usage = '[agent..]'
export const positionals = {
  agent: {
    describe: 'Agents by their file in nix/agents, or module/<name>; default: all',
    array: true,
  },
}
export const options = {
  sample: {
    type: 'number',
    least: 1,
    describe: 'Judge only this many of the mutants, chosen by the seed',
  },
  seed: { type: 'number', describe: 'Seed of the sample' },
  mutant: { type: 'string', array: true, describe: 'Judge only these, by their ids' },
  tests: {
    type: 'string',
    array: true,
    describe: 'Judge only by these test files, such as tests/agents/golden.test.ts',
  },
  resume: {
    type: 'boolean',
    describe: 'Continue the last run, with its agents, sample and seed, or its mutants',
  },
  fresh: { type: 'boolean', describe: 'Judge every mutant again, even if nothing has changed' },
  scenarios: {
    type: 'boolean',
    describe: 'Run scenarios on VMs for the mutants that survive the tests',
  },
  alone: { type: 'boolean', describe: 'Skip the tests: judge every mutant by --scenarios' },
  most: {
    type: 'number',
    least: 1,
    describe:
      'At most this many cases of --scenarios for each mutant, the ones most about its place first',
  },
  case: { type: 'string', array: true, describe: 'Cases for --scenarios, as <family>/<case>' },
  host: {
    type: 'string',
    array: true,
    describe: 'VMs for --scenarios, two at most; default: the first of the flake',
  },
  list: { type: 'boolean', describe: 'List the mutants and judge none' },
  json: { type: 'boolean', describe: 'Print data on standard output' },
} as const
export const under = [
  'vitest run tests/agents   in a copy of the project, once with traced agents',
  'vitest run -t <tests>   in the copy with one mutant: the tests that run its lines',
  'tsx tasks/prove.ts   with --scenarios: mutants are run like its controls',
]
export const examples: [string, string][] = [
  ['just mutate golden-lib --sample 20 --seed 1', 'Twenty mutants of one agent'],
  ['just mutate --resume', 'Continue the last run that was cut short'],
  [
    'just mutate --scenarios --alone --most 3 --sample 30',
    'How many mutants the VMs notice without the tests',
  ],
  ['just mutate module/golden-generation --list', 'List what would be tried'],
]

export async function run(args: Args): Promise<ExitCode> {
  const json = Boolean(args['json'])
  const say = (line: string): void => void process.stderr.write(`${line}\n`)
  const anew = ['sample', 'seed', 'mutant'].find((flag) => args[flag] !== undefined)
  if (args['resume'] && (args['agent']?.length || anew !== undefined))
    throw usageFailure(
      `Cannot use ${anew === undefined ? 'agents' : `--${anew}`} with --resume`,
      'It goes on with those of the last run',
    )
  await refuseCases(args)
  const asked = await whatIsAsked(args)
  const mutants = await choose(asked)
  if (args['list']) {
    const { told } = await import('../lib/mutation/mutant.ts')
    const rows = mutants.map((one) => [one.id, `${one.file}:${one.lines[0]}`, one.kind, told(one)])
    if (json) console.log(JSON.stringify(mutants, null, 2))
    else console.log(table([['mutant', 'place', 'kind', 'what it does'], ...rows]))
    return Exit.held
  }
  const judged = await judge(mutants, asked, args, say)
  return await summarize(judged, asked, json)
}

/**
 * Checks the options of the scenarios before the tests run, which takes hours.
 * @throws Failure (usage) for such an option without --scenarios, and for an unknown case
 */
async function refuseCases({ scenarios, case: cases, ...args }: Args): Promise<void> {
  const idle = cases ? 'case' : ['host', 'alone', 'most'].find((flag) => args[flag] !== undefined)
  if (idle && !scenarios)
    throw usageFailure(`Cannot use --${idle} without --scenarios`, 'Tests alone run in no VM')
  if (args['alone'] && args['tests'])
    throw usageFailure('Cannot use --tests with --alone', 'With it no test judges')
  if (!cases) return
  const { choose: chooseCases } = await import('../lib/scenario/run.ts')
  const { families } = await import('./pipelines/families.ts')
  chooseCases(await families(), cases)
}

/** @throws Failure (usage) if there is no run to resume */
async function whatIsAsked(args: Args): Promise<Asked> {
  if (!args['resume']) {
    const seed = args['seed'] ?? Math.floor(Math.random() * 2 ** 31)
    return { agents: args['agent'] ?? [], seed, sample: args['sample'], mutants: args['mutant'] }
  }
  const { kept } = await import('../lib/mutation/verdicts.ts')
  const { asked } = kept()
  if (!asked) throw usageFailure('Cannot resume: there is no earlier run', 'Leave out --resume')
  return asked
}

/** @throws Failure (usage) for an unknown agent or mutant */
async function choose({ agents, seed, sample, mutants: ids }: Asked): Promise<Mutant[]> {
  const { mutantsOf, programs, sample: take } = await import('../lib/mutation/mutant.ts')
  const known = programs(project)
  for (const agent of agents) {
    if (!known.has(agent))
      throw unknownName(
        'an agent',
        agent,
        [...known.keys()],
        `The agents: ${[...known.keys()].join(' ')}`,
      )
  }
  const chosen = [...known].filter(([agent]) => agents.length === 0 || agents.includes(agent))
  const all = await Promise.all(chosen.map(([agent, file]) => mutantsOf(project, agent, file)))
  const mutants = all.flat()
  for (const id of ids ?? []) {
    if (!mutants.some((one) => one.id === id))
      throw usageFailure(`Cannot find the mutant \`${id}\``, 'just mutate --list lists them all')
  }
  if (mutants.length === 0)
    throw usageFailure(
      `There is no mutant of ${agents.join(' ')}`,
      'A run without one would prove nothing: name other agents',
    )
  if (ids) return mutants.filter(({ id }) => ids.includes(id))
  return sample === undefined ? mutants : take(mutants, sample, seed)
}

/** Finds the verdict of every mutant; a recorded verdict that is still valid is reused. */
async function judge(
  mutants: Mutant[],
  asked: Asked,
  args: Args,
  say: (line: string) => void,
): Promise<Judged[]> {
  const { makeCopy } = await import('../lib/mutation/copy.ts')
  const { judging, traceTests } = await import('../lib/mutation/map.ts')
  const { told } = await import('../lib/mutation/mutant.ts')
  const { meetTests, prepare } = await import('../lib/mutation/trial.ts')
  const { equivalents, keep, kept } = await import('../lib/mutation/verdicts.ts')
  const reasons = equivalents()
  const before = kept()
  const verdicts = args['fresh'] ? {} : before.verdicts
  const found: Judged[] = []
  let copy: Copy | undefined
  const ready = async (): Promise<Copy> => (copy ??= await makeCopy())
  try {
    const alone = Boolean(args['alone'])
    const files = alone ? [] : judging(mutants, args['tests'])
    // recorded now, because the first verdict may take an hour, and --resume must work before it
    keep({ asked, verdicts: before.verdicts })
    const traces = await traceTests(files, ready, say)
    for (const [index, mutant] of mutants.entries()) {
      const prepared = prepare(mutant, traces)
      const reason = reasons.get(mutant.id)
      const known = verdicts[mutant.id]
      let verdict: Verdict
      if (reason !== undefined) {
        const { id } = mutant
        verdict = { id, state: 'equivalent', found: reason, seconds: 0, key: prepared.key }
      } else if (known?.key === prepared.key) verdict = known
      else if (alone)
        verdict = { id: mutant.id, state: 'not run', found: '', seconds: 0, key: prepared.key }
      else {
        verdict = await meetTests(prepared, traces, await ready())
        verdicts[mutant.id] = verdict
        keep({ asked, verdicts: { ...kept().verdicts, [mutant.id]: verdict } })
        const place = `${mutant.file}:${mutant.lines[0]}`
        say(
          `${index + 1} of ${mutants.length}: ${verdict.state}: ${place} ${told(mutant)} (${verdict.seconds.toFixed(0)} s)`,
        )
      }
      found.push({ ...mutant, ...verdict })
    }
  } finally {
    await copy?.end()
  }
  if (!args['scenarios']) return found
  const { meetScenarios } = await import('../lib/mutation/scenarios.ts')
  const { families } = await import('./pipelines/families.ts')
  const { case: cases, host: hosts, most, json } = args
  const given = { cases, hosts, most, seed: asked.seed, json }
  return await meetScenarios(found, await families(), given, (verdict) =>
    keep({ asked, verdicts: { ...kept().verdicts, [verdict.id]: verdict } }),
  )
}

async function summarize(judged: Judged[], { seed }: Asked, json: boolean): Promise<ExitCode> {
  const { head, page, row, survivors, tallies } = await import('../lib/mutation/tally.ts')
  const path = await import('node:path')
  const { labHome } = await import('../lib/settings.ts')
  const { writeFile } = await import('../lib/write-file.ts')
  const counted = tallies(judged)
  const report = path.join(labHome(), 'mutants.html')
  writeFile(report, page(judged, `${judged.length} mutants, seed ${seed}`), {
    over: 'any',
    mode: 0o600,
  })
  const alive = survivors(judged)
  if (json) console.log(JSON.stringify({ seed, report, ...counted, mutants: judged }, null, 2))
  else {
    console.log(table([head('agent'), ...[...counted.agents, counted.all].map(row)]))
    console.log(`\n${table([head('kind'), ...counted.kinds.map(row)])}`)
    if (alive.length > 0)
      console.log(`\n${table([['mutant', 'place', 'kind', 'state', 'what it does'], ...alive])}`)
    console.log(`seed: ${seed}\nreport: ${report}`)
  }
  return alive.length === 0 ? Exit.held : Exit.checkFailed
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

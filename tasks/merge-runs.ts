import { writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { oneLine, type ExitCode } from '../lib/failure.ts'
import type { RunRecord } from '../lib/report/record.ts'
import { main, type Args } from '../lib/task.ts'

export const name = 'merge-runs'
export const describe = 'Join the records of several runs: one report, one junit.xml, one exit code'
export const usage = '<dir..>'
export const positionals = {
  dir: { describe: 'Records of runs, or directories that contain some', array: true },
}
export const options = {
  to: { type: 'string', describe: 'Directory to write to; default: a new one beside the runs' },
  json: { type: 'boolean', describe: 'Print data on standard output' },
} as const
export const under = [
  'reads <dir>/{run.json,results.json,events.jsonl,evidence/}',
  'writes {run.json,events.jsonl,results.json,junit.xml,report.html,durations.json,evidence/}',
]
export const parts = {
  'Exit code, the greatest that applies': [
    '0  every requested case passed in one of the parts, or was skipped',
    '1  a case failed',
    '2  there is no record, or the records differ in flake, dotfiles, hosts or version of the lab',
    '3  no part ran a case, or the case could not be run; or no case was run at all',
  ],
}
export const examples: [string, string][] = [
  ['just merge-runs part-1 part-2', 'The records of two parts'],
  ['tsx tasks/merge-runs.ts parts --to merged', 'All records in a directory, as in a CI'],
]

export async function run(args: Args): Promise<ExitCode> {
  const { keepEvidence, merge, newDirectory, readParts } = await import('../lib/report/merge.ts')
  const { openRecord } = await import('../lib/report/record.ts')
  const { writePlan } = await import('../lib/report/plan.ts')
  const { writeReports } = await import('../lib/report/reports.ts')
  const { summarize } = await import('../lib/report/summary.ts')
  const { plan, events, notes, troubles, durations, ...merged } = merge(readParts(args['dir']))

  const record =
    args['to'] === undefined ? openRecord('merged') : at(newDirectory(resolve(args['to'])))
  const { id, dir } = record
  const results = keepEvidence(merged.results, dir)
  const lines = events.map((one) => `${JSON.stringify(one)}\n`).join('')
  writeFileSync(join(dir, 'events.jsonl'), lines, { mode: 0o600 })
  writeFileSync(join(dir, 'durations.json'), `${JSON.stringify(durations, null, 2)}\n`)
  const { hosts, lanes, seed, ground } = plan
  const told = troubles.map(({ message }) => message)
  const page = { id, hosts, seed, ground, notes, troubles: told, lanes, results, events }
  const unwritten = writeReports(record, page)
  writePlan(dir, plan)

  for (const note of [...notes, ...told]) console.error(oneLine(`${name}: ${note}`))
  const ended = { dir, hosts, results, troubles: [...troubles, ...unwritten] }
  return summarize(ended, Boolean(args['json']))
}

const at = (dir: string): Pick<RunRecord, 'dir' | 'id' | 'settle'> => ({
  dir,
  id: basename(dir),
  settle: () => {},
})

await main(import.meta, {
  name,
  describe,
  usage,
  positionals,
  options,
  parts,
  under,
  examples,
  run,
})

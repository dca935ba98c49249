import type { ExitCode } from '../failure.ts'
import { main, type Args, type Task } from '../task.ts'
import type { Family } from './family.ts'
import { flags } from './flags.ts'

const options = {
  case: { type: 'string', array: true, describe: 'Names of the cases to run; default: all' },
  seed: { type: 'number', describe: 'Seed of what is random; a failure prints its own' },
  subject: flags.subject,
  keep: flags.keep,
  pause: flags.pause,
  list: flags.list,
  json: flags.json,
} as const

/** The task of a family: its task file only has to supply the table of cases. */
export const scenario = (family: Family): Task => ({
  name: family.name,
  describe: family.describe,
  usage: '[host..]',
  positionals: {
    host: { describe: 'VMs to use, two at most; the first of the flake without any', array: true },
  },
  options,
  under: [
    'QMP snapshot-load   the baseline: booted, seeded, golden pinned; made at the first run',
    'git commit-tree, update-ref   in <LAB_HOME>/srv/<host>, which the guest fetches from',
    'ssh, the guest agent and QMP as each case needs them; then the oracle on every VM',
    'writes <LAB_HOME>/runs/<id>/{events.jsonl,junit.xml,report.html}',
  ],
  examples: [
    [`just gitops-test ${family.name}`, 'All cases'],
    [`tsx tasks/${family.name}.ts sorrow --case ${family.cases[0]?.name ?? 'NAME'}`, 'One case'],
  ],
  run: async (args: Args): Promise<ExitCode> => {
    const { runFamilies } = await import('./run.ts')
    return runFamilies([family], {
      name: family.name,
      hosts: args['host'],
      cases: args['case'],
      seed: args['seed'],
      subject: args['subject'],
      keep: Boolean(args['keep']),
      pause: Boolean(args['pause']),
      list: Boolean(args['list']),
      json: Boolean(args['json']),
    })
  },
})

/** Runs a family's task when its file was started directly. */
export const scenarioTask = (meta: ImportMeta, family: Family): Promise<void> =>
  main(meta, scenario(family))

// what a task file needs for its cases
export type { Case, EditCase, Family, Scene, TrialCase } from './family.ts'
export type { Machine } from './machine.ts'

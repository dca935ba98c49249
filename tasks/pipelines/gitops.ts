import type { ExitCode } from '../../lib/failure.ts'
import { toCarryOn } from '../../lib/report/cut-short.ts'
import { readShard } from '../../lib/report/shard.ts'
import { flags } from '../../lib/scenario/flags.ts'
import { readJobs } from '../../lib/scenario/jobs.ts'
import { main, type Args } from '../../lib/task.ts'
import { families, familyNames } from './families.ts'

export const name = 'pipelines/gitops'
export const describe = 'Break the GitOps setup in every way on both VMs, and report what held'
export const usage = '[family..]'
export const positionals = {
  family: { describe: 'Families of scenarios; default: all', array: true },
}
export const options = {
  host: flags.host,
  case: flags.case,
  shard: flags.shard,
  durations: flags.durations,
  jobs: flags.jobs,
  resume: {
    type: 'boolean',
    describe: 'Continue the last run that was cut short, with the remaining cases',
  },
  list: flags.list,
  seed: flags.seed,
  subject: flags.subject,
  keep: flags.keep,
  pause: flags.pause,
  json: flags.json,
} as const
export const under = [
  'tasks/auto-upgrade.ts, break-boot.ts, chaos-network.ts, concurrent-edits.ts, full-workflow.ts',
  'runs cases of one VM on both VMs in parallel; cases of two VMs after them',
  'cp --reflink=auto, QMP migrate   with --jobs, once: a mold of both VMs at their baseline',
  'QMP migrate-incoming   for each copy in <LAB_HOME>/copies/<n>, whose disks are overlays of the mold',
  'writes <LAB_HOME>/runs/<id>/{run.json,events.jsonl,results.json,junit.xml,report.html}',
]
export const examples: [string, string][] = [
  ['just gitops-test', 'Everything'],
  ['just gitops-test auto-upgrade', 'One family'],
  ['tsx tasks/pipelines/gitops.ts --case break-boot/panic', 'One case'],
  ['just gitops-test --resume', 'Continue the last run, into the same report'],
  ['just gitops-test --jobs auto', 'Everything, in as many copies as this machine has room for'],
  ['just gitops-test --shard 2/4 --seed 7', 'The second of four parts; just merge-runs joins them'],
]

export async function run(args: Args): Promise<ExitCode> {
  const { runFamilies } = await import('../../lib/scenario/run.ts')
  const wanted = await families(args['family'])
  const resume = args['resume'] ? toCarryOn(['gitops', ...familyNames], args) : undefined
  const { name: called, hosts, seed, subject, shard } = resume?.plan ?? {}
  return runFamilies(wanted, {
    name: called ?? (wanted.length === 1 ? wanted[0]!.name : 'gitops'),
    hosts: hosts ?? args['host'],
    cases: args['case'],
    seed: seed ?? args['seed'],
    subject: subject?.asked ?? args['subject'],
    keep: Boolean(args['keep']),
    pause: Boolean(args['pause']),
    shard: shard ?? readShard(args['shard']),
    durations: args['durations'],
    jobs: readJobs(args['jobs']),
    resume,
    list: Boolean(args['list']),
    json: Boolean(args['json']),
  })
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

import { Exit, oneLine, usage as usageFailure, type ExitCode } from '../lib/failure.ts'
import { unknown as unknownName } from '../lib/nearest.ts'
import {
  controlFrom,
  controls,
  isPatchFile,
  type Control,
  type Proof,
} from '../lib/scenario/control.ts'
import { flags } from '../lib/scenario/flags.ts'
import { readJobs } from '../lib/scenario/jobs.ts'
import { green, red, table } from '../lib/table.ts'
import { toCarryOn } from '../lib/report/cut-short.ts'
import { partEnded, readShard, type Shard } from '../lib/report/shard.ts'
import { main, type Args } from '../lib/task.ts'
import { families } from './pipelines/families.ts'

export const name = 'prove'
export const describe = 'Disable one safety net at a time and check that the scenarios notice'
export const usage = '[control..]'
export const positionals = {
  control: { describe: 'Controls by name, or patch files; default: all controls', array: true },
}
export const options = {
  host: flags.host,
  case: { type: 'string', describe: 'Case that a patch file must turn red, as <family>/<case>' },
  shard: flags.shard,
  durations: flags.durations,
  jobs: flags.jobs,
  resume: {
    type: 'boolean',
    describe: 'Continue the last run that was cut short, with the remaining controls',
  },
  list: { type: 'boolean', describe: 'List the controls and run none' },
  seed: flags.seed,
  keep: { type: 'boolean', describe: 'Leave the VMs as the last control left them' },
  json: flags.json,
} as const
export const under = [
  'git apply tests/controls/<name>.patch   in a commit of the remote alone',
  'switch-to-configuration, reboot, pin-golden   so that each VM runs the agents without the net',
  'tasks/<family>.ts --case <case>   which must come out red, by the check that the patch names',
]
export const examples: [string, string][] = [
  ['just prove', 'Every control; one that no check notices fails the run'],
  ['tsx tasks/prove.ts known-bad --host sorrow', 'One'],
  ['just prove --resume', 'Continue the last run that was cut short'],
  ['just prove --shard 1/2', 'The first of two parts; just merge-runs joins them'],
  ['tsx tasks/prove.ts my.patch --case auto-upgrade/good-commit', 'Your own patch'],
]

export async function run(args: Args): Promise<ExitCode> {
  const wanted = choose(args['control'], args['case'])
  const json = Boolean(args['json'])
  const jobs = readJobs(args['jobs'])
  const part = { shard: readShard(args['shard']), durations: args['durations'] }
  if (args['list']) {
    const listed = part.shard ? await ofPart(wanted, part) : wanted
    const rows = listed.map((one) => [one.name, one.case, one.cut])
    console.log(
      json ? JSON.stringify(listed, null, 2) : table([['control', 'case', 'cut'], ...rows]),
    )
    return Exit.held
  }
  const { runControls } = await import('../lib/scenario/control-run.ts')
  const resume = args['resume'] ? toCarryOn([name], args) : undefined
  const ran = await runControls(wanted, await families(), {
    name,
    // the safety nets are those of the lab's agents
    subject: 'lab',
    ...part,
    ...(resume && { shard: resume.plan.shard }),
    jobs,
    hosts: resume?.plan.hosts ?? args['host'],
    seed: resume?.plan.seed ?? args['seed'],
    resume,
    // --resume could not find a patch file again by its name
    ...(!args['control']?.some(isPatchFile) && { goOn: 'just prove --resume carries on' }),
    keep: args['keep'],
    json,
  })
  const code = summarize(ran.proofs, ran.wanted, ran.dir, json)
  const shard = resume ? resume.plan.shard : part.shard
  if (shard && !json) console.log(partEnded(shard, ran.dir))
  return ran.troubles.length > 0 ? Exit.labCouldNotRun : code
}

async function ofPart(
  wanted: Control[],
  part: { shard?: Shard; durations?: string },
): Promise<Control[]> {
  const { controlsOf } = await import('../lib/scenario/control-run.ts')
  return controlsOf(wanted, await families(), part)
}

/**
 * Controls by name and patches by path, each once and with a unique name.
 * @throws Failure (usage) for an unknown name
 */
function choose(named: string[] | undefined, ofCase: string | undefined): Control[] {
  const all = controls()
  const files = named?.filter(isPatchFile) ?? []
  if (ofCase !== undefined && files.length === 0) {
    throw usageFailure('Cannot use --case without a patch file', 'A control names its own case')
  }
  if (!named?.length) return all
  const chosen = [...new Set(named)].map((one) => {
    if (isPatchFile(one)) return controlFrom(one, ofCase)
    const found = all.find(({ name: known }) => known === one)
    if (found) return found
    const known = all.map((control) => control.name)
    throw unknownName('a control', one, known, `just prove --list lists all ${all.length}`)
  })
  return chosen.map((one, index) => {
    const before = chosen.slice(0, index).filter((other) => other.name === one.name).length
    return before === 0 ? one : { ...one, name: `${one.name}-${before + 1}` }
  })
}

function summarize(proofs: Proof[], asked: number, dir: string, json: boolean): ExitCode {
  const caught = proofs.filter(({ state }) => state === 'caught').length
  if (json) console.log(JSON.stringify({ run: dir, proofs }, null, 2))
  else {
    const rows = proofs.map((one) => [
      one.control,
      one.case,
      one.hosts.join(' '),
      one.state === 'caught' ? green(one.state) : red(one.state.toUpperCase()),
      `${one.seconds.toFixed(0)} s`,
      oneLine(one.found.split('\n')[0]!.slice(0, 120)),
    ])
    console.log(table([['control', 'case', 'VM', '', 'took', 'red by'], ...rows]))
    console.log(`${caught} of ${asked} caught`)
    console.log(`record: ${dir}`)
    for (const one of proofs) {
      if (one.state === 'caught') continue
      const evidence = one.evidence ? `evidence ${one.evidence}; ` : ''
      console.log(`${one.control}: ${evidence}replay: ${one.replay}`)
    }
  }
  if (proofs.length < asked || proofs.some(({ state }) => state === 'not run')) {
    return Exit.labCouldNotRun
  }
  return caught === asked && asked > 0 ? Exit.held : Exit.checkFailed
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

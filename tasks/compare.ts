import { join } from 'node:path'
import { Exit, usage as usageFailure, type ExitCode } from '../lib/failure.ts'
import { upgradeKinds, upgradeKindsInWords } from '../lib/lab-settings.ts'
import { flags } from '../lib/scenario/flags.ts'
import { main, type Args } from '../lib/task.ts'
import { table } from '../lib/table.ts'

export const name = 'compare'
export const describe =
  'Run the same cases on several ways to upgrade, and show what each one holds'
export const usage = '[subject..]'
export const positionals = {
  subject: {
    describe: `${upgradeKindsInWords}; default: the lab's agents and system.autoUpgrade`,
    array: true,
  },
}
export const options = {
  host: flags.host,
  case: flags.case,
  every: {
    type: 'boolean',
    describe: 'Test each for every promise, also for those it never made',
  },
  list: flags.list,
  seed: { type: 'number', describe: 'Seed of the random choices, the same for all' },
  of: { type: 'string', array: true, describe: 'Record of an earlier run; runs nothing' },
  json: flags.json,
} as const
export const under = [
  'just gitops-test --subject <subject> --seed <seed>   one after another, with the same cases',
  'writes <LAB_HOME>/runs/<id>/{compare.json,compare.html} and a record for each subject',
]
export const examples: [string, string][] = [
  ['just compare', "The lab's agents against system.autoUpgrade"],
  ['just compare lab unit --case unit-fails', 'One case, on your own unit as lab.toml names it'],
  [
    'just compare --of <dir> --of <dir>',
    'Two earlier runs of the same cases, on other hosts or days',
  ],
]

export async function run(args: Args): Promise<ExitCode> {
  const { theSubject } = await import('../lib/scenario/subjects.ts')
  const { choose, judgeCases } = await import('../lib/scenario/run.ts')
  const { families } = await import('./pipelines/families.ts')
  const { unknown } = await import('../lib/nearest.ts')
  const json = Boolean(args['json'])
  const wanted = [...new Set((args['subject'] as string[] | undefined) ?? [])]
  const subjects = wanted.length > 0 ? wanted : ['lab', 'nixos-upgrade']
  const wrong = subjects.find((one) => !(upgradeKinds as readonly string[]).includes(one))
  if (wrong !== undefined) {
    throw unknown('a subject', wrong, [...upgradeKinds], 'docs/subjects.md says what each is')
  }
  const before = args['of'] as string[] | undefined
  const choice = ['case', 'every', 'host', 'list', 'seed'].find((one) => args[one] !== undefined)
  if (before && (wanted.length > 0 || choice !== undefined)) {
    throw usageFailure(
      `Cannot use ${choice === undefined ? 'subjects' : `--${choice}`} with --of`,
      'The earlier runs fix these: name only their records',
    )
  }
  const all = await families()
  const named = args['case'] as string[] | undefined
  // by default, the cases that fit every subject
  const chosen = choose(all, named).filter(({ one }) => Boolean(named?.length) || !one.own)
  if (args['list']) {
    const rows = chosen.map(({ family, one }) => [one.promise, family.name, one.name, one.title])
    console.log(
      json ? JSON.stringify(rows, null, 2) : table([['promise', 'family', 'case', ''], ...rows]),
    )
    return Exit.held
  }
  const { matrix, matrixExit, matrixPage, matrixText, readJudged, withoutSubject } =
    await import('../lib/scenario/matrix.ts')
  const { openRecord } = await import('../lib/report/record.ts')
  const { writeFile } = await import('../lib/write-file.ts')
  const found: ReturnType<typeof readJudged> = before
    ? readJudged(before)
    : { judged: [], troubles: [], dates: [today()], grounds: [], seeds: [] }
  const seed = (args['seed'] as number | undefined) ?? Math.floor(Math.random() * 2 ** 31)
  for (const kind of before ? [] : subjects) {
    if (!json) console.error(`\n${kind}`)
    const ended = await judgeCases(chosen, {
      name: `compare-${kind}`,
      subject: kind,
      every: Boolean(args['every']),
      hosts: args['host'],
      ...{ seed, json },
    })
    const { dir, results, hosts } = ended
    found.judged.push({ subject: await theSubject(kind, hosts[0]!), results, dir })
    found.troubles.push(...ended.troubles)
    found.grounds = [withoutSubject(ended.ground)]
    found.seeds = [seed]
  }
  const { judged, troubles } = found
  const rows = matrix(judged, all)
  const titles = judged.map(({ subject }) => subject.title)
  const [date, ground] = [found.dates.join(' and '), found.grounds.join(' and ')]
  const said = `${date}; ${ground}; seed ${found.seeds.join(' and ')}`
  const record = openRecord(name)
  record.settle()
  const runs = Object.fromEntries(judged.map(({ subject, dir }) => [subject.title, dir]))
  const data = { date, ground, seeds: found.seeds, runs, promises: rows }
  writeFile(join(record.dir, 'compare.json'), JSON.stringify(data, null, 2), { mode: 0o600 })
  const page = join(record.dir, 'compare.html')
  writeFile(page, matrixPage(rows, titles, said), { mode: 0o600 })
  console.log(json ? JSON.stringify(data, null, 2) : matrixText(rows, titles))
  if (!json) console.log(`${said}\nreport: ${page}`)
  return troubles.length > 0 ? Exit.labCouldNotRun : matrixExit(rows)
}

const today = (): string => new Date().toISOString().slice(0, 10)

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

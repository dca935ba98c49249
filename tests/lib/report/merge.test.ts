import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { merge, readParts } from '../../../lib/report/merge.ts'
import { writePlan, type Plan } from '../../../lib/report/plan.ts'
import type { CaseResult, CaseState } from '../../../lib/report/result.ts'
import type { Row } from '../../../lib/scenario/matrix.ts'
import { makeLab, type Lab } from '../../lab.ts'

let lab: Lab
beforeEach(() => (lab = makeLab()))
afterEach(() => rmSync(lab.dir, { recursive: true }))

const asked = ['f/a', 'f/b', 'f/c', 'g/d']
const plan: Plan = {
  ...{ name: 'gitops', hosts: ['sorrow', 'torment'], seed: 7, flake: 'f00', dotfiles: 'd00' },
  ...{ lab: '1ab', ground: 'tcg (LAB_ACCEL says so), guest debian', asked, cases: [] },
  ended: { troubles: [] },
}

const result = (name: string, state: CaseState = 'passed', more: object = {}): CaseResult => ({
  ...{
    family: name.split('/')[0]!,
    case: name.split('/')[1]!,
    title: name,
    hosts: ['sorrow'],
    state,
  },
  ...{ reason: state === 'passed' ? '' : `it is ${state}`, seconds: 10, seed: 7, oracle: [] },
  checks: [{ name: 'one', held: state === 'passed', expected: 'x', found: 'x' }],
  replay: `replay ${name}`,
  ...more,
})

/** Writes a record as a run leaves it. */
function part(name: string, results: CaseResult[] | undefined, more: Partial<Plan> = {}): string {
  const dir = join(lab.dir, name)
  mkdirSync(dir, { recursive: true })
  const cases = (results ?? []).map((one) => `${one.family}/${one.case}`)
  writePlan(dir, { ...plan, cases, ...more })
  if (results) writeFileSync(join(dir, 'results.json'), JSON.stringify(results))
  const event = (id: number, t: number, rest: object): string =>
    `${JSON.stringify({ id, at: '', t, kind: 'case', name: cases[0] ?? 'f/x', ...rest })}\n`
  writeFileSync(
    join(dir, 'events.jsonl'),
    event(1, 1, { phase: 'begin', hosts: ['sorrow'] }) + event(2, 5, { phase: 'end', of: 1 }),
  )
  return dir
}

/** The plan of a part, as text. */
function planOf(of: { index: number; count: number }): string {
  return JSON.stringify({ ...plan, shard: of })
}

const shard = (index: number, count: number): Partial<Plan> => ({ shard: { index, count } })
const one = (): string => part('one', [result('f/c'), result('f/a')], shard(1, 2))
const two = (): string => part('two', [result('g/d'), result('f/b')], shard(2, 2))
const mergeRuns = (...args: string[]) => lab.task('merge-runs', ...args)

test('the parts of a run are merged into one record, in the order of the tables', async () => {
  const to = join(lab.dir, 'merged')
  const { code, stdout, stderr } = await mergeRuns(one(), two(), '--to', to, '--json')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const { run, state, results } = JSON.parse(stdout) as { results: CaseResult[] } & Record<
    string,
    string
  >
  expect({ run, state }).toEqual({ run: to, state: 'passed' })
  expect(results.map(({ family, case: name }) => `${family}/${name}`)).toEqual(asked)
  expect(readFileSync(join(to, 'junit.xml'), 'utf8')).toContain('tests="4" failures="0" errors="0"')
  const page = readFileSync(join(to, 'report.html'), 'utf8')
  for (const lane of ['part 1/2 sorrow', 'part 2/2 torment']) expect(page).toContain(lane)
  // a merged run can be merged again, and its durations distribute the next run
  const times = JSON.parse(readFileSync(join(to, 'durations.json'), 'utf8')) as object
  expect(times).toEqual(Object.fromEntries(asked.map((name) => [name, 10])))
  const again = join(lab.dir, 'again')
  expect((await mergeRuns(to, '--to', again)).code).toBe(0)
  expect(readFileSync(join(again, 'report.html'), 'utf8')).toContain('merged part 1/2 sorrow')
})

test('events of several parts get distinct ids, even if the parts used the same ones', () => {
  const { events } = merge(readParts([one(), two()]))
  expect(events.map(({ id, of, hosts }) => [id, of, hosts])).toEqual([
    [1, undefined, ['part 1/2 sorrow']],
    [3, undefined, ['part 2/2 sorrow']],
    [2, 1, ['part 1/2 sorrow', 'part 1/2 torment']],
    [4, 3, ['part 2/2 sorrow', 'part 2/2 torment']],
  ])
})

test('a part that was run again has its own lanes', () => {
  const again = part('again', [result('f/c')], shard(1, 2))
  const { plan: merged, events } = merge(readParts([one(), two(), again]))
  const lanes = ['part 1/2 (1: one)', 'part 2/2', 'part 1/2 (2: again)']
  expect(merged.lanes).toEqual(lanes.flatMap((title) => [`${title} sorrow`, `${title} torment`]))
  const began = events.filter(({ phase }) => phase === 'begin')
  expect(began.map(({ hosts }) => hosts)).toEqual(lanes.map((title) => [`${title} sorrow`]))
})

test('a case that no part ran is an error, named in the report and in JUnit', async () => {
  const to = join(lab.dir, 'merged')
  const { code, stdout, stderr } = await mergeRuns(one(), '--to', to)
  expect(code).toBe(3)
  expect(stderr).toContain('merge-runs: part 2/2 is not there')
  expect(stderr).toContain('merge-runs: no part ran f/b, g/d')
  expect(stdout).toMatch(/g +d .*ERROR .*it was not run/)
  expect(stdout).toContain('g d: replay: just gitops-test --case g/d')
  expect(readFileSync(join(to, 'junit.xml'), 'utf8')).toContain('errors="2"')
  expect(readFileSync(join(to, 'report.html'), 'utf8')).toContain('no part ran f/b, g/d')
  // with the missing part the run is complete
  const { results } = merge(readParts([to, two()]))
  expect(results.map(({ state }) => state)).toEqual(asked.map(() => 'passed'))
})

test.each<[CaseState, number]>([
  ['failed', 1],
  ['error', 3],
  ['skipped', 0],
])('a case with the state %s in a part gives exit code %i', async (state, wanted) => {
  const other = part('two', [result('g/d', state), result('f/b')], shard(2, 2))
  const { code, stdout } = await mergeRuns(one(), other)
  expect(code, stdout).toBe(wanted)
  expect(readdirSync(join(lab.dir, 'home/runs'))).toHaveLength(1)
})

test('runs in which every case was skipped exit with 3', async () => {
  const all = asked.map((name) => result(name, 'skipped'))
  expect((await mergeRuns(part('all', all))).code).toBe(3)
})

test.each<[string, Partial<Plan>, string]>([
  ['flakes', { flake: 'f11' }, 'different flakes, or of different commits of one (f00 and f11)'],
  ['dotfiles', { dotfiles: 'd11' }, 'different dotfiles'],
  [
    'subjects',
    { subject: { kind: 'unit', title: 'my.service', promises: [] } },
    'different subjects (none and my.service)',
  ],
  ['versions of the lab', { lab: '2cd' }, 'different versions of the lab (1ab and 2cd)'],
  ['hosts', { hosts: ['web', 'db'] }, 'different hosts (sorrow, torment and web, db)'],
])('parts of different %s are refused, and nothing is written', async (_, more, words) => {
  const other = part('two', [result('g/d'), result('f/b')], more)
  const { code, stderr, stdout } = await mergeRuns(one(), other, '--to', join(lab.dir, 'merged'))
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain(words)
  expect(readdirSync(lab.dir).toSorted()).toEqual(['one', 'two'])
})

test('different seeds, different ground and cases run twice are noted, and the worst result counts', () => {
  const more = { ...shard(2, 2), seed: 8, ground: 'kvm (a probe guest ran on it), guest debian' }
  const other = part('two', [result('f/a', 'failed'), result('f/b'), result('g/d')], more)
  const { notes, results } = merge(readParts([one(), other]))
  expect(notes).toEqual([
    'the parts have different seeds: 7, 8',
    expect.stringMatching(/^the parts ran on different ground: tcg .*; kvm /),
    'several parts ran the same cases, of which the worst result counts: f/a',
  ])
  expect(results.map(({ state }) => state)).toEqual(['failed', 'passed', 'passed', 'passed'])
})

test('a part whose cases need one VM may have one of the hosts', () => {
  const other = part('two', [result('g/d'), result('f/b')], { ...shard(2, 2), hosts: ['sorrow'] })
  for (const parts of [
    [one(), other],
    [other, one()],
  ])
    expect(merge(readParts(parts))).toMatchObject({ notes: [], plan: { hosts: plan.hosts } })
})

test('a part that was cut short is noted, and its cases without a result count as not run', () => {
  const killed = part('two', undefined, { ...shard(2, 2), cases: ['f/b', 'g/d'], ended: undefined })
  const { notes } = merge(readParts([one(), killed]))
  expect(notes).toEqual(['part 2/2 was cut short', 'no part ran f/b, g/d'])
})

test('trouble after the cases of a part makes the merged run exit with 3', async () => {
  const ended = { troubles: ['Cannot put `sorrow` back'] }
  const other = part('two', [result('g/d'), result('f/b')], { ...shard(2, 2), ended })
  const to = join(lab.dir, 'merged')
  const { code, stderr } = await mergeRuns(one(), other, '--to', to)
  expect({ code, stderr }).toEqual({
    code: 3,
    stderr: 'merge-runs: part 2/2: Cannot put `sorrow` back\n',
  })
  expect(readFileSync(join(to, 'report.html'), 'utf8')).toMatch(
    /<h1>Failed: [^]*part 2\/2: Cannot put `sorrow` back/,
  )
  // also if the merged run is merged again
  expect(merge(readParts([to])).troubles).toHaveLength(1)
})

test('the merged record has the evidence of its parts, as a CI may keep nothing else', async () => {
  const elsewhere = '/home/runner/runs/x/evidence'
  const failed = (name: string) =>
    result(name, 'failed', { evidence: `${elsewhere}/${name.replace('/', '-')}` })
  const left = part('left', [failed('f/a'), failed('f/b')], shard(1, 2))
  mkdirSync(join(left, 'evidence/f-a'), { recursive: true })
  writeFileSync(join(left, 'evidence/f-a/serial.log'), 'panic')
  const to = join(lab.dir, 'merged')
  const { stdout } = await mergeRuns(left, two(), '--to', to)
  rmSync(left, { recursive: true })
  expect(stdout).toContain(`f a: evidence ${to}/evidence/f-a; replay: `)
  // what was not brought along is named where it was
  expect(stdout).toContain(`f b: evidence ${elsewhere}/f-b; replay: `)
  expect(readFileSync(join(to, 'evidence/f-a/serial.log'), 'utf8')).toBe('panic')
})

test('records are found in subdirectories, and evidence beside its record', () => {
  const elsewhere = '/home/runner/runs/x/evidence/f-a'
  const dir = part('parts/one/id-1', [result('f/a', 'failed', { evidence: elsewhere })])
  mkdirSync(join(dir, 'evidence/f-a'), { recursive: true })
  cpSync(two(), join(lab.dir, 'parts/two'), { recursive: true })
  // a VM's directory, which has events but is no record of a run
  mkdirSync(join(lab.dir, 'parts/vms/sorrow'), { recursive: true })
  for (const name of ['vm.json', 'events.jsonl'])
    writeFileSync(join(lab.dir, 'parts/vms/sorrow', name), '')
  const parts = readParts([join(lab.dir, 'parts'), dir])
  expect(parts).toHaveLength(2)
  expect(parts[0]!.results[0]!.evidence).toBe(join(dir, 'evidence/f-a'))
})

test.each<[string, string, RegExp]>([
  ['an empty directory', '', /^merge-runs: Cannot find a run in `.*there`\n {2}hint: /],
  ['a truncated file', '{"asked": [', /^merge-runs: Cannot read `.*run\.json`: .*JSON.*\n$/],
  ['null', 'null', /^merge-runs: Cannot read `.*run\.json`: it does not say what was/],
  [
    'a JSON file of another kind',
    '{}',
    /^merge-runs: Cannot read `.*run\.json`: it does not say what was asked/,
  ],
])('%s instead of a record is refused in one line', async (_, text, words) => {
  const dir = mkdtempSync(join(tmpdir(), 'merge-'))
  mkdirSync(join(dir, 'there'))
  if (text) writeFileSync(join(dir, 'there/run.json'), text)
  const { code, stderr } = await mergeRuns(join(dir, 'there'))
  rmSync(dir, { recursive: true })
  expect(code).toBe(2)
  expect(stderr).toMatch(words)
})

test.each([
  ['results.json', '{}'],
  ['results.json', '[{'],
  ['events.jsonl', 'no JSON\n'],
])('a damaged %s is refused in one line', async (name, text) => {
  const dir = one()
  writeFileSync(join(dir, name), text)
  const { code, stderr } = await mergeRuns(dir, two())
  expect(code).toBe(2)
  expect(stderr).toMatch(new RegExp(`^merge-runs: Cannot read \`.*${name}\`: .*\\n$`))
})

test('results without events are refused as an incomplete record', () => {
  const dir = one()
  rmSync(join(dir, 'events.jsonl'))
  expect(() => readParts([dir, two()])).toThrow(
    `Cannot read \`${join(dir, 'events.jsonl')}\`: it is not there`,
  )
  // as in a run that was killed at its very beginning
  rmSync(join(dir, 'results.json'))
  expect(readParts([dir])).toMatchObject([{ results: [], events: [] }])
})

test('--to refuses a directory that is not empty', async () => {
  const { code, stderr } = await mergeRuns(one(), two(), '--to', two())
  expect(code).toBe(2)
  expect(stderr).toMatch(/^merge-runs: Cannot write into `.*two`: it is not empty\n/)
})

test('--to refuses a file or a dangling symlink, and leaves it unchanged', async () => {
  const [file, link] = [join(lab.dir, 'file'), join(lab.dir, 'link')]
  writeFileSync(file, 'mine')
  symlinkSync('nowhere', link)
  for (const to of [file, link]) {
    const { code, stderr } = await mergeRuns(one(), two(), '--to', to)
    expect(code).toBe(2)
    expect(stderr).toMatch(/^merge-runs: Cannot write into `.*`: it is not a directory\n.*\n$/)
  }
  expect([readFileSync(file, 'utf8'), readlinkSync(link)]).toEqual(['mine', 'nowhere'])
})

test('control characters in a record are escaped for the terminal', async () => {
  const escape = '\u001b]0;x\u0007'
  const odd = result('f/a', 'failed', { replay: `just ${escape}`, hosts: [`a${escape}`] })
  const dir = part('odd', [odd], { ground: `tcg${escape}`, ended: { troubles: [escape] } })
  const { stdout, stderr } = await mergeRuns(dir, one())
  expect(stdout + stderr).toContain('replay: just \\u001b]0;x')
  expect(stdout + stderr).not.toContain('\u001b')
})

const both = ['auto-upgrade/good-commit', 'auto-upgrade/unit-fails']
const judging = (title: string, promises: string[]): Partial<Plan> => ({
  ...{ asked: both, flake: title, subject: { kind: 'unit', title, promises } },
})

test('runs on different hosts are compared by what each has judged', async () => {
  const held = both.map((name) => result(name))
  const ours = part('ours', held, judging('ours', ['deploy', 'rollback']))
  const broken = [held[0]!, result(both[1]!, 'failed')]
  const theirs = part('theirs', broken, judging('theirs', ['deploy']))
  const { code, stdout, stderr } = await lab.task('compare', '--of', ours, '--of', theirs, '--json')
  expect(stdout, stderr).not.toBe('')
  const { promises, seeds } = JSON.parse(stdout) as { promises: Row[]; seeds: number[] }
  expect(seeds).toEqual([7])
  expect(
    promises.map(({ promise, by }) => [promise, by['ours']?.state, by['theirs']?.state]),
  ).toEqual([
    ['deploy', 'held', 'held'],
    ['rollback', 'held', 'broken'],
  ])
  // it never promised a rollback
  expect(code).toBe(0)
})

test.each([
  ['a run that does not say what it judged', { asked: both }, 'it does not say what was judged'],
  ['a run of other cases', { ...judging('other', []), asked }, 'they were asked for other cases'],
])('compare refuses %s', async (_, more, why) => {
  const ours = part('ours', [result(both[0]!)], judging('ours', ['deploy']))
  const other = part('other', [], more)
  const { code, stderr } = await lab.task('compare', '--of', ours, other)
  expect([code, stderr]).toEqual([2, expect.stringContaining(why)])
})

test.each(['--seed 1', '--host sorrow', '--list', '--every', '--case good-commit', 'lab'])(
  'compare refuses to choose anew for finished runs: %s',
  async (words) => {
    const ours = part('ours', [result(both[0]!)], judging('ours', ['deploy']))
    const { code, stderr } = await lab.task('compare', ...words.split(' '), '--of', ours)
    const [first] = words.split(' ')
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining(`Cannot use ${first === 'lab' ? 'subjects' : first} with --of`),
    ])
  },
)

test('a case that no run has a result of makes a comparison exit with 3', async () => {
  const ours = part('ours', [result(both[0]!)], judging('ours', ['deploy']))
  expect((await lab.task('compare', '--of', ours)).code).toBe(3)
})

test.each<[string, string, string, string]>([
  ['no result', 'results.json', '[null]', 'it is no list of results'],
  ['a result without its checks', 'results.json', '[{"family":"f"}]', 'it is no list of results'],
  [
    'a plan of cases without names',
    'run.json',
    '{"hosts":[],"asked":[1],"cases":[]}',
    'it does not say',
  ],
  ['a plan without hosts', 'run.json', '{"asked":[],"cases":[]}', 'it does not say'],
  ...['flake', 'dotfiles', 'lab', 'ground', 'seed', 'name'].map(
    (key): [string, string, string, string] => [
      `a plan without its ${key}`,
      'run.json',
      JSON.stringify({ ...plan, [key]: undefined }),
      'it does not say',
    ],
  ),
  [
    'a subject without its promises',
    'run.json',
    JSON.stringify({ ...plan, subject: { kind: 'unit', title: 'x' } }),
    'it does not say',
  ],
  [
    'an incomplete check',
    'results.json',
    JSON.stringify([result('f/a', 'passed', { checks: [{ name: 'one' }] })]),
    'it is no list of results',
  ],
  [
    'an oracle row in an unknown state',
    'results.json',
    JSON.stringify([
      result('f/a', 'failed', {
        oracle: [{ host: '', name: 'x', state: '"><script>', expected: '', found: '' }],
      }),
    ]),
    'it is no list of results',
  ],
  [
    'a pass without a check',
    'results.json',
    JSON.stringify([result('f/a', 'passed', { checks: [] })]),
    'it is no list of results',
  ],
  [
    'a pass with a failed check',
    'results.json',
    JSON.stringify([{ ...result('f/a', 'failed'), state: 'passed' }]),
    'it is no list of results',
  ],
  ['one of too many parts', 'run.json', planOf({ index: 1, count: 99_999_999 }), 'it does not say'],
  ['no event', 'events.jsonl', 'null\n', 'its line 1 is no event'],
])('a record with %s in it is refused, and the file is named', async (_, file, text, words) => {
  const dir = one()
  writeFileSync(join(dir, file), text)
  const { code, stdout, stderr } = await mergeRuns(dir, two(), '--to', join(lab.dir, 'merged'))
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toMatch(/^.*\n$/)
  expect(stderr).toContain(`merge-runs: Cannot read \`${join(dir, file)}\`: ${words}`)
  expect(readdirSync(lab.dir).toSorted()).toEqual(['one', 'two'])
})

test('a record without its plan is refused, even among complete ones', async () => {
  one()
  rmSync(join(two(), 'run.json'))
  const { code, stderr } = await mergeRuns(lab.dir)
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: expect.stringMatching(
      /^merge-runs: Cannot read `.*two\/run\.json`: it is not there\n$/,
    ),
  })
})

test('a comparison refuses a result whose case no longer exists', async () => {
  const cases = [both[0]!, 'auto-upgrade/of-yore']
  const results = [result(cases[0]!), result(cases[1]!, 'failed')]
  const ours = part('ours', results, { ...judging('ours', ['deploy']), asked: cases })
  const { code, stderr } = await lab.task('compare', '--of', ours)
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: expect.stringContaining('Cannot compare `auto-upgrade/of-yore`'),
  })
})

test('a file given instead of a directory is refused', async () => {
  const { code, stderr } = await mergeRuns(join(one(), 'run.json'))
  expect({ code, stderr }).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('Cannot find a run in'),
  })
})

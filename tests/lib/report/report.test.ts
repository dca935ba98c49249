import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execFileSync } from 'node:child_process'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { junit } from '../../../lib/report/junit.ts'
import { openRecord, pruneRuns, readEvents } from '../../../lib/report/record.ts'
import { report, style, whereTimeWent } from '../../../lib/report/report.ts'
import { complete, judgeCase, worst, type CaseResult } from '../../../lib/report/result.ts'
import { summarize } from '../../../lib/report/summary.ts'
import { spans, timeline } from '../../../lib/report/timeline.ts'
import { existsSync } from 'node:fs'
import { onSmallDisk } from '../../small-disk.ts'

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'report-'))
  vi.stubEnv('LAB_HOME', home)
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

const passed: CaseResult = {
  ...{ family: 'auto-upgrade', case: 'good', title: 'a good commit', hosts: ['sorrow'] },
  ...{ state: 'passed', reason: '', seconds: 12.5, seed: 7, oracle: [] },
  checks: [{ name: 'outcome', held: true, expected: 'upgraded', found: 'upgraded' }],
  replay: 'just auto-upgrade sorrow --case good --seed 7',
}
const bad: CaseResult = {
  ...passed,
  case: 'bad',
  state: 'failed',
  reason: 'outcome: expected <b>"conflict"</b> & more\u0001, found nothing',
}

test('two runs that start at the same time get separate records', async () => {
  vi.setSystemTime(new Date(2026, 0, 1))
  // neither run sees the other's directory
  vi.doMock('node:fs', async (fs) => ({ ...(await fs<object>()), existsSync: () => false }))
  vi.resetModules()
  const { openRecord: open } = await import('../../../lib/report/record.ts')
  vi.doUnmock('node:fs')
  const [one, two] = [open('x'), open('x')]
  vi.useRealTimers()
  expect(two.dir).toBe(`${one.dir}-2`)
})

test('a run that starts after the clock was set back keeps its own record when old ones are pruned', () => {
  const at = (year: number) => {
    vi.setSystemTime(new Date(year, 0, 1))
    return openRecord('x')
  }
  const runs = [at(2026), at(2027), at(2020)]
  vi.useRealTimers()
  pruneRuns(runs[2]!.id, 2)
  expect(runs.map(({ dir }) => existsSync(dir))).toEqual([false, true, true])
})

const asked = { hosts: ['web', 'db'], seed: 7 }

const event = (id: number, t: number, more: object) => ({ id, t, at: '', ...more }) as never

test('a case fails by a failed check or oracle row, or if it checked nothing', () => {
  const judged = (more: Partial<CaseResult>): CaseResult => {
    const one = { ...passed, ...more }
    judgeCase(one)
    return one
  }
  expect(judged({}).state).toBe('passed')
  expect(
    judged({ checks: [{ ...passed.checks[0]!, held: false, found: 'offline' }] }),
  ).toMatchObject({ state: 'failed', reason: 'outcome: expected upgraded, found offline' })
  const row = {
    host: 'sorrow',
    name: 'profile',
    state: 'failed' as const,
    expected: 'a',
    found: 'b',
  }
  expect(judged({ oracle: [row] })).toMatchObject({
    state: 'failed',
    reason: 'oracle: sorrow profile: expected a, found b',
  })
  expect(judged({ checks: [] })).toMatchObject({ state: 'failed', reason: 'it checked nothing' })
})

test('the state of a run is that of its worst case', () => {
  const run = (...states: CaseResult['state'][]) =>
    worst(states.map((state) => ({ ...passed, state })))
  expect(run('passed', 'skipped')).toBe('passed')
  expect(run('passed', 'failed', 'skipped')).toBe('failed')
  expect(run('error', 'failed')).toBe('error')
  expect(run('skipped')).toBe('skipped')
  expect(run()).toBe('skipped')
})

test('a planned case without a result is an error, at its place in the order', () => {
  const results = complete([bad, passed], ['auto-upgrade/good', 'f/a', 'auto-upgrade/bad'], asked)
  expect(results.map(({ case: name, state }) => [name, state])).toEqual([
    ['good', 'passed'],
    ['a', 'error'],
    ['bad', 'failed'],
  ])
  expect(results[1]).toMatchObject({
    family: 'f',
    replay: 'just gitops-test --case f/a --host web --host db --seed 7',
  })
  const replay = (name: string, more = {}) => complete([], [name], { ...asked, ...more })[0]!.replay
  const subject = { kind: 'unit', title: 'x.service', promises: [], asked: 'unit' }
  expect(replay('f/a', { subject })).toMatch(/ --seed 7 --subject unit$/)
  expect(replay('prove/lock', { subject })).toBe('just prove lock --host web --host db --seed 7')
})

test('a report is headed Held only if a case passed, and none failed or was an error', () => {
  const head = (...states: CaseResult['state'][]): string | undefined =>
    /<h1>(\w+)/.exec(
      report({
        ...{ id: 'x', hosts: [], seed: 7, ground: '', events: [] },
        results: states.map((state) => ({ ...passed, state })),
      }),
    )?.[1]
  expect(head('passed', 'skipped')).toBe('Held')
  expect(head('passed', 'error')).toBe('Failed')
  expect(head('skipped')).toBe('Nothing')
  expect(head()).toBe('Nothing')
})

test('a run that was cut short lists the cases not run, after its failures', () => {
  const results = complete(
    [passed, bad],
    ['auto-upgrade/good', 'f/a', 'f/b', 'auto-upgrade/bad'],
    asked,
  )
  const run = { id: 'x', hosts: [], seed: 7, ground: '', events: [] }
  const page = report({ ...run, results })
  expect(page).toMatch(/<h1>Failed: x.*\n.*1 passed.*1 failed.*2 not run.*0 skipped/)
  expect(page.match(/<section class="failure"/g)).toHaveLength(2)
  // failures come before the cases that were not run and the table
  expect(page.indexOf('id="auto-upgrade-bad"')).toBeLessThan(page.indexOf('id="not-run"'))
  expect(page.indexOf('id="not-run"')).toBeLessThan(page.indexOf('<h2>Cases'))
  for (const [, to] of page.matchAll(/href="#([^"]*)"/g)) expect(page).toContain(`id="${to}"`)
  expect(page.match(/href="#/g)).toHaveLength(3)
  const told = vi.spyOn(console, 'log').mockImplementation(() => {})
  summarize({ dir: home, hosts: [], results, troubles: [] }, false)
  const said = told.mock.calls.flat() as string[]
  told.mockRestore()
  expect(said).toContain('1 passed, 1 failed, 2 not run, 0 skipped')
  expect(said.at(-1)).toContain('auto-upgrade bad: replay')
  expect(report({ ...run, results: complete([passed], ['f/a'], asked) })).toContain(
    '<h1>Not finished',
  )
})

test('trouble at the end of a run makes it fail, in the report and in the JSON', () => {
  const run = { id: 'x', hosts: [], seed: 7, ground: '', events: [] }
  const page = report({ ...run, results: [passed], troubles: ['Cannot put `sorrow` back'] })
  expect(page).toMatch(/<h1>Failed: x[^]*<p class="reason">Cannot put `sorrow` back/)
  const told = vi.spyOn(console, 'log').mockImplementation(() => {})
  const troubles = [new Failure('Cannot put `sorrow` back')]
  expect(summarize({ dir: home, hosts: [], results: [passed], troubles }, true)).toBe(3)
  const [said] = told.mock.calls.flat() as string[]
  told.mockRestore()
  expect(JSON.parse(said!)).toMatchObject({
    state: 'passed',
    troubles: ['Cannot put `sorrow` back'],
  })
})

test('text contrasts with its background in the light and the dark theme', () => {
  const colours = (theme: string): Record<string, string> =>
    Object.fromEntries(
      [...theme.matchAll(/--(\w+):(#\w+)/g)].map(([, name, value]) => [name, value]),
    )
  const [, light, dark] = style.split(':root{') as [string, string, string]
  const luminance = (hex: string): number => {
    const parts = /^#(..?)(..?)(..?)$/.exec(hex)!.slice(1)
    const linear = parts.map((part) => {
      const value = Number.parseInt(part.padStart(2, part), 16) / 255
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * linear[0]! + 0.7152 * linear[1]! + 0.0722 * linear[2]!
  }
  const [bars, cases] = [
    ['boot', 'up', 'fault'],
    ['caseok', 'casebad', 'caseskip'],
  ]
  const pairs: [text: string, behind: string][] = [
    ...['fg', 'dim', 'ok', 'bad', 'skip'].map((text): [string, string] => [text, 'bg']),
    ['fg', 'card'],
    ...bars!.map((behind): [string, string] => ['on', behind]),
    ...cases!.map((behind): [string, string] => ['fg', behind]),
  ]
  for (const theme of [colours(light), colours(dark)]) {
    const poor = pairs.filter(([text, behind]) => {
      const [a, b] = [luminance(theme[text]!), luminance(theme[behind]!)]
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5
    })
    expect(poor).toEqual([])
  }
})

test('a long reason leaves room for the names beside it, and keeps its line breaks', () => {
  const page = report({
    ...{ id: 'x', hosts: [], seed: 7, ground: '', events: [] },
    results: [{ ...bad, reason: 'one\n  two' }],
  })
  expect(page).toContain('<p class="reason">one\n  two</p>')
  expect(page).toMatch(/\.reason\{[^}]*white-space:pre-wrap/)
  expect(page).toMatch(/<table class="cases">/)
  expect(page).toMatch(/\.cases>\*>tr>:first-child\{min-width:/)
})

test('text in an event of a foreign record is escaped in the timeline', () => {
  const at = { kind: 'case', name: 'f/a', hosts: ['sorrow'] }
  const events = [
    event(1, 1, { ...at, phase: 'begin' }),
    event(2, 9, { ...at, phase: 'end', of: 1, state: '"><script>' }),
  ]
  expect(timeline(events, ['sorrow'])).not.toContain('<script>')
})

test('control characters in a reason are escaped for the terminal', () => {
  const told = vi.spyOn(console, 'log').mockImplementation(() => {})
  const reason = 'found \u001b[2K\rall is well'
  summarize({ dir: home, hosts: [], results: [{ ...bad, reason }], troubles: [] }, false)
  const said = told.mock.calls.flat().join('\n')
  told.mockRestore()
  expect(said).toContain('found \\u001b[2K\\rall is well')
})

test('the record is read back, except a line that a crash truncated', () => {
  const record = openRecord('auto-upgrade')
  const began = record.note({ kind: 'boot', name: 'boot', host: 'sorrow', phase: 'begin' })
  record.note({ kind: 'boot', name: 'boot', host: 'sorrow', phase: 'end', of: began })
  const whole = readEvents(record.dir)
  expect(whole.map(({ id, of }) => [id, of])).toEqual([
    [1, undefined],
    [2, 1],
  ])
  writeFileSync(join(record.dir, 'events.jsonl'), '{"id": 3, "ki', { flag: 'a' })
  expect(readEvents(record.dir)).toEqual(whole)
})

test('only the newest runs are kept', () => {
  const runs = [1, 2, 3, 4].map((count) => {
    vi.setSystemTime(new Date(2026, 0, count))
    const record = openRecord('x')
    record.note({ kind: 'run', name: 'x' })
    return record
  })
  vi.useRealTimers()
  pruneRuns(runs[3]!.id, 2)
  expect(runs.map(({ dir }) => existsSync(dir))).toEqual([false, false, true, true])
})

test('a span runs from its begin to its end event, or to the end of the record', () => {
  const events = [
    event(1, 1, { kind: 'case', name: 'f/a', phase: 'begin', hosts: ['sorrow', 'torment'] }),
    event(2, 2, { kind: 'boot', name: 'boot', host: 'sorrow', case: 'f/b', phase: 'begin' }),
    event(3, 5, { kind: 'case', name: 'f/a', phase: 'end', of: 1, state: 'failed' }),
    event(4, 9, { kind: 'power', name: 'cut', host: 'sorrow' }),
  ]
  expect(spans(events)).toEqual([
    { kind: 'case', name: 'f/a', host: 'sorrow', from: 1, to: 5, state: 'failed' },
    { kind: 'case', name: 'f/a', host: 'torment', from: 1, to: 5, state: 'failed' },
    { kind: 'boot', name: 'boot', host: 'sorrow', case: 'f/b', from: 2, to: 9, state: undefined },
  ])
  expect(whereTimeWent(events)[0]).toEqual(['boots', 7])
})

test('a span that a case left open ends with the case, even if a resumed run ends the case', () => {
  const of = { case: 'f/a', host: 'torment', phase: 'begin' }
  const events = [
    event(1, 1, {
      ...{ kind: 'case', name: 'f/a', case: 'f/a', phase: 'begin' },
      hosts: ['torment'],
    }),
    event(2, 1, {
      ...{ kind: 'case', name: 'f/a', case: 'f/a', phase: 'begin' },
      hosts: ['sorrow'],
    }),
    event(3, 2, { ...of, kind: 'boot', name: 'boot' }),
    event(4, 3, { ...of, kind: 'fault', name: 'cut', host: undefined }),
    event(5, 3, { ...of, kind: 'step', name: 'oracle', host: undefined, hosts: ['torment'] }),
    event(6, 4, { kind: 'case', name: 'f/a', case: 'f/a', phase: 'end', of: 2 }),
    event(7, 9, { kind: 'case', name: 'f/a', case: 'f/a', phase: 'end', of: 1 }),
    event(8, 90, { kind: 'boot', name: 'boot', host: 'torment', phase: 'end', of: 3 }),
    event(9, 99, { ...of, kind: 'boot', name: 'boot', case: 'f/b' }),
    event(10, 100, { kind: 'run', name: 'x', phase: 'end' }),
  ]
  expect(spans(events).map(({ kind, to }) => [kind, to])).toEqual([
    ['case', 9],
    ['case', 4],
    ['boot', 9],
    ['fault', 4],
    ['step', 9],
    ['boot', 100],
  ])
})

test('the timeline shows for each VM how much of the time of all cases it was busy', () => {
  const at = (id: number, name: string, from: number, to: number, hosts: string[]) => [
    event(id, from, { kind: 'case', name, phase: 'begin', hosts }),
    event(id + 1, to, { kind: 'case', name, phase: 'end', of: id, state: 'passed' }),
  ]
  const events = [
    event(1, 0, { kind: 'step', name: 'baseline', phase: 'begin', host: 'sorrow' }),
    event(2, 100, { kind: 'step', name: 'baseline', phase: 'end', of: 1, host: 'sorrow' }),
    ...at(3, 'f/a', 100, 200, ['sorrow', 'torment']),
    ...at(5, 'f/b', 150, 180, ['sorrow (copy 1)']),
    ...at(7, 'f/c', 180, 200, ['sorrow (copy 1)']),
  ]
  const page = timeline(events, ['sorrow', 'torment', 'sorrow (copy 1)', 'torment (copy 1)'])
  const shares = [...page.matchAll(/class="host"[^>]*>([^<]*) <tspan class="lane">([^<]*)</g)]
  expect(shares.map(([, vm, share]) => [vm, share])).toEqual([
    ['sorrow', 'busy 100 %'],
    ['torment', 'busy 100 %'],
    ['sorrow (copy 1)', 'busy 50 %'],
    ['torment (copy 1)', 'busy 0 %'],
  ])
})

test('the time of a case is split into named parts and the rest', () => {
  const at = { case: 'f/a', host: 'sorrow' }
  const events = [
    // the baseline's boot and reset are not part of a case
    event(1, 0, { kind: 'step', name: 'baseline', host: 'sorrow', phase: 'begin' }),
    event(2, 10, { kind: 'boot', name: 'boot', host: 'sorrow', phase: 'begin' }),
    event(3, 30, { kind: 'boot', name: 'boot', host: 'sorrow', phase: 'end', of: 2 }),
    event(4, 35, { kind: 'reset', name: 'put back', host: 'sorrow', seconds: 5 }),
    event(5, 40, { kind: 'step', name: 'baseline', host: 'sorrow', phase: 'end', of: 1 }),
    event(6, 40, { kind: 'case', name: 'f/a', phase: 'begin', ...at, hosts: ['sorrow'] }),
    event(7, 42, { kind: 'work', name: 'dotfile syncs', phase: 'begin', ...at }),
    event(8, 45, { kind: 'work', name: 'dotfile syncs', phase: 'end', of: 7, ...at }),
    event(9, 46, { kind: 'reset', name: 'put back', seconds: 2, ...at }),
    event(10, 60, { kind: 'case', name: 'f/a', phase: 'end', of: 6, ...at }),
  ]
  expect(whereTimeWent(events)).toEqual([
    ['baseline', 40],
    ['the rest of the cases', 15],
    ['dotfile syncs', 3],
    ['resets', 2],
  ])
})

test('JUnit has counts, failures and skips, in XML that a parser accepts', () => {
  const skipped: CaseResult = { ...passed, case: 'none', state: 'skipped', reason: 'no KVM' }
  const error: CaseResult = { ...passed, case: 'bug', state: 'error', reason: 'stack ]]>' }
  // trouble after the cases fails the run, so it must not leave the report green
  const text = junit([passed, bad, skipped, error], 'run', ['Cannot put `sorrow` back <1>'])
  const path = join(home, 'junit.xml')
  writeFileSync(path, text)
  const read = `import sys, xml.etree.ElementTree as t
root = t.parse(sys.argv[1]).getroot()
suite = root[0]
print(suite.get('tests'), suite.get('failures'), suite.get('errors'), suite.get('skipped'))
print([[child.tag for child in case if child.tag != 'system-out'] for case in suite])
print(suite[1][0].get('message'))
print(root.get('tests'), root.get('errors'), [(case.get('name'), case[0].tag, case[0].get('message')) for case in root[1]])`
  const lines = execFileSync('python3', ['-c', read, path], { encoding: 'utf8' }).split('\n')
  expect(lines.slice(0, 4)).toEqual([
    '4 1 1 1',
    "[[], ['failure'], ['skipped'], ['error']]",
    'outcome: expected <b>"conflict"</b> & more\ufffd, found nothing',
    "5 2 [('after the cases, 1', 'error', 'Cannot put `sorrow` back <1>')]",
  ])
})

test('the report is one file that contains the evidence, with all text escaped', () => {
  const evidence = join(home, 'evidence')
  execFileSync('mkdir', ['-p', join(evidence, 'sorrow')])
  writeFileSync(
    join(evidence, 'sorrow', 'journal.txt'),
    'a line <script>alert(1)</script> \u001b[31mred',
  )
  writeFileSync(join(evidence, 'sorrow', 'screen.png'), 'png')
  const page = report({
    ...{ id: 'run', hosts: ['sorrow'], seed: 7, ground: 'tcg' },
    results: [passed, { ...bad, evidence }],
    events: [
      event(1, 0, { kind: 'case', name: 'f/<i>', phase: 'begin', hosts: ['sorrow'] }),
      event(2, 10, { kind: 'power', name: 'cut', host: 'sorrow' }),
    ],
  })
  expect(page).toContain('a line &lt;script&gt;alert(1)&lt;/script&gt; red')
  expect(page).toContain('data:image/png;base64,cG5n')
  expect(page).toContain('just auto-upgrade sorrow --case good --seed 7')
  expect(page).not.toMatch(/<script|<i>|https?:|<b>"conflict/)
})

test('the page says which part of the evidence it leaves out, and where all of it is', () => {
  const dir = join(home, 'evidence')
  execFileSync('mkdir', ['-p', join(dir, 'sorrow')])
  const put = (name: string, text: string): void => writeFileSync(join(dir, 'sorrow', name), text)
  put('journal.txt', Array.from({ length: 2000 }, (_, at) => `line ${at}\n`).join(''))
  put('clock.txt', '')
  put(
    'serial.log',
    '\u001b]3008;start=1;type=boot\u001b\\\u001b(B\u001b[1;31mFAILED\u001b[0m\r\nof\u001b[>1u it\n',
  )
  const run = { id: 'run', hosts: ['sorrow'], seed: 7, ground: 'tcg', events: [] }
  const page = report({ ...run, results: [{ ...bad, evidence: dir }] })
  expect(page).toContain('<summary>sorrow/journal.txt (the last 300 of 2000 lines)</summary>')
  expect(page).toContain('<pre>line 1700\n')
  expect(page).toContain('<summary>sorrow/clock.txt (empty)</summary>')
  expect(page).toContain('<summary>sorrow/serial.log</summary><pre>FAILED\nof it</pre>')
  expect(page).toContain(`<p>Evidence: <code>${dir}</code></p>`)
  const elsewhere = report({ ...run, results: [{ ...bad, evidence: '/home/runner/x' }] })
  expect(elsewhere).toContain('it was left in <code>/home/runner/x</code>')
})

const filled = (afterwards: string): string => `
import { appendFileSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { openRecord, readEvents } from '#/lib/report/record.ts'
import { writeReports } from '#/lib/report/reports.ts'
const record = openRecord('x')
const fill = () => {
  for (const size of [65536, 4096, 1]) try {
    for (;;) appendFileSync(join(process.env.LAB_HOME, 'fill'), Buffer.alloc(size))
  } catch {}
}
record.note({ kind: 'event', name: 'before' })
fill()
for (let n = 0; n < 500; n++) record.note({ kind: 'event', name: 'full ' + n })
const onDisk = readEvents(record.dir).length
const result = ${JSON.stringify(passed)}
const page = { id: record.id, hosts: ['sorrow'], seed: 1, ground: 'tcg', results: [result], events: record.events }
${afterwards}
`

test('a run that fills the disk still gets complete reports', () => {
  const out = onSmallDisk(
    home,
    24,
    filled(`const troubles = writeReports(record, page)
    const sizes = Object.fromEntries(readdirSync(record.dir).map((f) => [f, readFileSync(join(record.dir, f)).length]))
    console.log(JSON.stringify({ onDisk, troubles, sizes, kept: readEvents(record.dir).length }))`),
  )
  const { onDisk, troubles, sizes, kept } = JSON.parse(out)
  expect(troubles).toEqual([])
  expect(onDisk).toBeLessThan(501)
  expect(kept).toBe(501)
  expect(Object.keys(sizes).toSorted()).toEqual([
    'events.jsonl',
    'junit.xml',
    'report.html',
    'results.json',
  ])
  expect(sizes['report.html']).toBeGreaterThan(4000)
})

test('a report that does not fit on the disk is reported, and leaves no empty file', () => {
  const out = onSmallDisk(
    home,
    24,
    filled(`record.settle()
    fill()
    const troubles = writeReports(record, page).map(({ message }) => message)
    console.log(JSON.stringify({ troubles, files: readdirSync(record.dir) }))`),
  )
  const { troubles, files } = JSON.parse(out)
  expect(files).toEqual(['events.jsonl'])
  expect(troubles).toHaveLength(3)
  expect(troubles[2]).toMatch(/^Cannot write `.*report\.html`: no space left on device$/)
})

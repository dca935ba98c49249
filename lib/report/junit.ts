import type { CaseResult } from './result.ts'

/**
 * A run as JUnit XML: a test suite per family, a test case per case.
 * @param troubles what the lab could not do after the cases; this fails the run, so it makes a suite of errors
 */
export function junit(results: CaseResult[], run: string, troubles: string[] = []): string {
  const families = [...new Set(results.map(({ family }) => family))]
  const suites = families.map((family) => {
    const own = results.filter((one) => one.family === family)
    return suite(family, counts(own), own.flatMap(testCase))
  })
  if (troubles.length > 0)
    suites.push(suite('lab', counts([], troubles), troubles.flatMap(trouble)))
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites ${attributes({ name: run, ...counts(results, troubles) })}>`,
    ...suites.flat(),
    '</testsuites>\n',
  ].join('\n')
}

const suite = (name: string, counted: Record<string, string>, cases: string[]): string[] => [
  `  <testsuite ${attributes({ name, ...counted })}>`,
  ...cases,
  '  </testsuite>',
]

const trouble = (message: string, index: number): string[] => [
  `    <testcase ${attributes({ name: `after the cases, ${index + 1}`, classname: 'lab', time: '0.000' })}>`,
  `      <error ${attributes({ message })}/>`,
  '    </testcase>',
]

function testCase(one: CaseResult): string[] {
  const head = attributes({
    name: one.case,
    classname: one.family,
    time: one.seconds.toFixed(3),
  })
  const message = attributes({ message: one.reason.split('\n')[0] ?? '' })
  const inside = {
    passed: [],
    skipped: [`      <skipped ${message}/>`],
    failed: [`      <failure ${message}>${escape(details(one))}</failure>`],
    error: [`      <error ${message}>${escape(one.reason)}</error>`],
  }[one.state]
  const said = `      <system-out>${escape(rows(one).join('\n'))}</system-out>`
  return [`    <testcase ${head}>`, ...inside, said, '    </testcase>']
}

const details = (one: CaseResult): string =>
  [one.reason, `replay: ${one.replay}`, one.evidence && `evidence: ${one.evidence}`]
    .filter(Boolean)
    .join('\n')

const rows = ({ title, hosts, seed, checks, oracle }: CaseResult): string[] => [
  `${title} (${hosts.join(', ')}, seed ${seed})`,
  ...checks.map((row) => `${row.held ? 'ok' : 'FAILED'} ${row.name}: ${row.found}`),
  ...oracle.map((row) => `${row.state} oracle ${row.host} ${row.name}: ${row.found}`),
]

function counts(results: CaseResult[], troubles: string[] = []): Record<string, string> {
  const count = (state: CaseResult['state']): number =>
    results.filter((one) => one.state === state).length
  return {
    tests: `${results.length + troubles.length}`,
    failures: `${count('failed')}`,
    errors: `${count('error') + troubles.length}`,
    skipped: `${count('skipped')}`,
    time: results.reduce((sum, { seconds }) => sum + seconds, 0).toFixed(3),
  }
}

const attributes = (values: Record<string, string>): string =>
  Object.entries(values)
    .map(([key, value]) => `${key}="${escape(value)}"`)
    .join(' ')

/** XML 1.0 cannot represent most control characters, not even escaped. */
const escape = (text: string): string =>
  text
    // oxlint-disable-next-line no-control-regex -- exactly these are what XML cannot hold
    .replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')

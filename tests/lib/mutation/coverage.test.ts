import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { counts, covered } from '../../../lib/mutation/coverage.ts'
import { coveragePage } from '../../../lib/mutation/coverage-page.ts'
import { readTrace, traced, type Hits } from '../../../lib/mutation/trace.ts'
import { run } from '../../../lib/run.ts'

const part = `# what both share
helper() {
  if [[ $1 == yes ]]; then echo "is yes"; fi
  [[ -n $2 ]] || echo "no second"
}
`
const program = `# the program
case \${1:-} in
  a) helper yes "$1" ;;
  *) helper no "" ;;
esac
if [[ \${1:-} == c ]]; then
  echo c
else
  echo other
fi
`

/** Runs the parts as one program, as agents do, once with each of these arguments. */
const trace = (...runs: string[]) => traceOf({ 'part.sh': part, 'program.sh': program }, runs)

async function traceOf(
  parts: Record<string, string>,
  runs = [''],
): Promise<{ hits: Hits; said: string }> {
  const scratch = mkdtempSync(join(tmpdir(), 'traced-'))
  onTestFinished(() => rmSync(scratch, { recursive: true }))
  const directory = join(scratch, 'traces')
  mkdirSync(directory)
  const own = (name: string, text: string): string =>
    traced(name, text, ['/nonexistent', directory])
  const all = Object.entries(parts).map(([name, text]) => own(name, text))
  writeFileSync(join(scratch, 'agent'), all.join(''))
  let said = ''
  for (const argument of runs) {
    const ran = await run('bash', ['-euo', 'pipefail', join(scratch, 'agent'), argument])
    said += ran.stdout + ran.stderr
  }
  const hits: Hits = {}
  for (const file of readdirSync(directory))
    readTrace(readFileSync(join(directory, file), 'utf8'), hits)
  return { hits, said }
}

test('A traced program prints the same output, and its trace has the lines of the files it sources', async () => {
  const { hits, said } = await trace('a')
  expect(said).toBe('is yes\nother\n')
  expect(Object.keys(hits['part.sh']!)).toEqual(['3', '4'])
  expect(hits['part.sh']![3]).toEqual({ '[[': 1, echo: 1 })
  expect(hits['program.sh']![3]).toEqual({ helper: 1 })
  expect(hits['program.sh']![9]).toEqual({ echo: 1 })
  expect(hits['program.sh']![4]).toBeUndefined()
})

test('A program of another shell is not changed', () => {
  expect(traced('x.sh', '#!/bin/sh\necho\n')).toBe('#!/bin/sh\necho\n')
})

test('For each line and branch coverage tells whether tests or scenarios ran it', async () => {
  const tests = (await trace('a')).hits
  const scenarios = (await trace('b')).hits
  const one = await covered('part.sh', part, tests, scenarios)
  // only the scenarios ran the command after `||`
  expect(counts(one, 'lines')).toMatchObject({ all: 2, tests: 1, scenarios: 1, neither: 0 })
  const missed = (who: 'tests' | 'scenarios') =>
    one.units.filter((unit) => unit.kind === 'branch' && !unit[who]).map(({ what }) => what)
  expect(missed('tests')).toEqual(['past it', 'after ||'])
  expect(missed('scenarios')).toEqual(['then'])
  const two = await covered('program.sh', program, tests, {})
  expect(counts(two, 'branches')).toMatchObject({ all: 4, tests: 2, scenarios: 0, neither: 2 })
  const page = coveragePage([one, two], 1)
  expect(page).toContain('title="never case; helper no &quot;&quot;"')
  expect(page).toMatch(/class="neither"[^>]*> +7 {4}echo c/)
})

test('The input of a loop is matched to the lines that bash traces it at', async () => {
  const text = `# reads
all() {
  local each
  while read -r each; do
    mapfile -t more < <(sort <<<"$each")
    echo "\${more[*]}"
  done < <(seq 2 |
    tac)
}
all
for each in 1; do
  cat
done < <(date |
  uniq)
`
  const { hits } = await traceOf({ 'reads.sh': text })
  const { units } = await covered('reads.sh', text, hits, {})
  expect(units.filter(({ tests }) => !tests).map(({ what }) => what)).toEqual([])
})

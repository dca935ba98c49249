import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { project } from '../settings.ts'
import type { Copy } from './copy.ts'
import { judgesOf, type Traced } from './map.ts'
import { mutated, type Mutant } from './mutant.ts'
import { keyOf, type Verdict } from './verdicts.ts'

/** Time limit of a test file: this many times its duration without a mutant, plus seconds for its start. */
const patience = { times: 6, more: 120 }

/** The tests that judge a mutant, and the key that tells whether an earlier verdict still holds. */
export function prepare(mutant: Mutant, traces: Traced[]) {
  const judges = judgesOf(mutant, traces)
  const text = readFileSync(join(project, mutant.file), 'utf8')
  return { mutant, judges, text, key: keyOf(mutant, text, judges) }
}
export type Prepared = ReturnType<typeof prepare>

/**
 * Puts a mutant into the copy and runs the tests that reach its lines, the quickest file first, until one fails twice
 * in a row.
 */
export async function meetTests(
  { mutant, judges, text, key }: Prepared,
  traces: Traced[],
  copy: Copy,
): Promise<Verdict> {
  const from = performance.now()
  const verdict = (state: Verdict['state'], found: string): Verdict => ({
    ...{ id: mutant.id, state, found, key, seconds: (performance.now() - from) / 1000 },
  })
  if (judges.length === 0) return verdict('not run', '')
  const undo = copy.lay(mutant.file, mutated(text, mutant))
  try {
    for (const { file, tests } of judges) {
      const usual = traces.find((one) => one.file === file)!.seconds
      const limit = usual * patience.times + patience.more
      const judge = (only: string[]) => copy.test(file, limit, { only, bail: true })
      for (let left = tests; left.length > 0;) {
        const ran = await judge(left)
        if (ran.state === 'green') break
        // a single failure proves nothing: the machine may have been busy, or the test may be flaky
        const red = ran.tests.filter(({ passed }) => !passed).map(({ name }) => name)
        const suspects = red.length > 0 ? red : left
        const again = await judge(suspects)
        if (again.state !== 'green') return verdict('killed by tests', again.found)
        left = left.filter((name) => !suspects.includes(name))
      }
    }
    return verdict('alive', '')
  } finally {
    undo()
  }
}

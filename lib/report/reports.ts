import { join } from 'node:path'
import { Failure, orUnwritable } from '../failure.ts'
import { writeFile } from '../write-file.ts'
import { junit } from './junit.ts'
import type { RunRecord } from './record.ts'
import type { CaseResult } from './result.ts'
import { report, type Run } from './report.ts'

/** What the cases came to until now, for a run that is killed; the whole is written at the end, where a full disk is told. */
export function writeResults(dir: string, results: CaseResult[]): void {
  try {
    writeFile(join(dir, 'results.json'), inJson(results), { mode: 0o600, over: 'any' })
  } catch (thrown) {
    if (!(orUnwritable(thrown) instanceof Failure)) throw thrown
  }
}

const inJson = (results: CaseResult[]): string => JSON.stringify(results, null, 2)

/**
 * The run's record for people and for machines, each file whole or not at all, the smallest first.
 * @returns why a file could not be written
 */
export function writeReports(
  { dir, id, settle }: Pick<RunRecord, 'dir' | 'id' | 'settle'>,
  page: Run,
): Failure[] {
  const { results } = page
  settle()
  const files: [name: string, make: () => string][] = [
    ['results.json', () => inJson(results)],
    ['junit.xml', () => junit(results, id)],
    ['report.html', () => report(page)],
  ]
  return files.flatMap(([name, make]) => {
    try {
      writeFile(join(dir, name), make(), { mode: 0o600, over: 'any' })
      return []
    } catch (thrown) {
      const known = orUnwritable(thrown)
      if (known instanceof Failure) return [known]
      throw thrown
    }
  })
}

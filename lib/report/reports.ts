import { join } from 'node:path'
import { Failure, orUnwritable } from '../failure.ts'
import { writeFile } from '../write-file.ts'
import { junit } from './junit.ts'
import { keepRecord } from './plan.ts'
import type { RunRecord } from './record.ts'
import type { CaseResult } from './result.ts'
import { report, type Run } from './report.ts'

/** Writes the results so far, in case the run is killed; `writeReports` writes all, and reports a full disk. */
export const writeResults = (dir: string, results: CaseResult[]): void =>
  keepRecord(dir, 'results.json', results)

/**
 * Writes the run's reports for people and for machines, each file whole or not at all, the smallest first.
 * @returns a failure for each file that could not be written
 */
export function writeReports(
  { dir, id, settle }: Pick<RunRecord, 'dir' | 'id' | 'settle'>,
  page: Run,
): Failure[] {
  const { results, troubles } = page
  settle()
  const files: [name: string, make: () => string][] = [
    ['results.json', () => JSON.stringify(results, null, 2)],
    ['junit.xml', () => junit(results, id, troubles)],
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

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Exit, oneLine, type ExitCode, type Failure } from '../failure.ts'
import { green, red, table, yellow } from '../table.ts'
import { readEvents } from './record.ts'
import { whereTimeWent } from './report.ts'
import { byState, worst, type Ran } from './result.ts'

type Ended = Ran & { troubles: Failure[] }

/**
 * Prints the last lines: the table, where the time went, the report, and how to run each failure again.
 * @param ran the outcome of the run; `troubles` are what the lab could not do after the cases
 */
export function summarize({ dir, results, troubles }: Ended, json: boolean): ExitCode {
  const told = troubles.map(({ message }) => message)
  if (json)
    console.log(
      JSON.stringify({ run: dir, state: worst(results), troubles: told, results }, null, 2),
    )
  else {
    const colour = { passed: green, failed: red, error: red, skipped: yellow }
    const rows = results.map((one) => [
      // a record may come from elsewhere and hold any text
      ...[one.family, one.case, one.hosts.join(' ')].map(oneLine),
      colour[one.state](one.state === 'passed' ? 'passed' : one.state.toUpperCase()),
      `${one.seconds.toFixed(1)} s`,
      oneLine(one.reason.split('\n')[0]!),
    ])
    console.log(table([['family', 'case', 'VM', '', 'took', ''], ...rows]))
    const { passed, bad, left, skipped } = byState(results)
    const notRun = left.length > 0 ? `, ${left.length} not run` : ''
    console.log(`${passed.length} passed, ${bad.length} failed${notRun}, ${skipped.length} skipped`)
    const went = whereTimeWent(readEvents(dir)).filter(([, seconds]) => seconds >= 1)
    if (went.length > 0)
      console.log(`time: ${went.map(([what, s]) => `${what} ${s.toFixed(0)} s`).join(', ')}`)
    const page = join(dir, 'report.html')
    console.log(`report: ${existsSync(page) ? page : `none; what could be written is in ${dir}`}`)
    // failures come last, where a reader looks first
    for (const one of [...left, ...bad]) {
      const evidence = one.evidence ? `evidence ${one.evidence}; ` : ''
      console.log(oneLine(`${one.family} ${one.case}: ${evidence}replay: ${one.replay}`))
    }
  }
  return exitOf({ results, troubles })
}

/** The exit code of a run, by the worst of its results. */
export function exitOf({ results, troubles }: Pick<Ended, 'results' | 'troubles'>): ExitCode {
  if (troubles.length > 0) return Exit.labCouldNotRun
  // a run in which nothing ran has proved nothing
  return {
    passed: Exit.held,
    failed: Exit.checkFailed,
    error: Exit.labCouldNotRun,
    skipped: Exit.labCouldNotRun,
  }[worst(results)]
}

import { basename } from 'node:path'
import { Exit, oneLine, usage, type ExitCode, type Failure } from '../failure.ts'
import { merge, readParts } from '../report/merge.ts'
import { escape } from '../report/timeline.ts'
import { nameOf, type CaseResult } from '../report/result.ts'
import { green, red, table, yellow } from '../table.ts'
import type { Family } from './family.ts'
import { allPromises, promises, type Promised } from './promise.ts'

/** Results of the cases of one subject. */
export interface Judged {
  subject: { title: string; promises: ReadonlySet<Promised> }
  results: CaseResult[]
  /** The run's directory. */
  dir: string
}

/**
 * Reads the results of earlier runs, each of one subject and all of the same cases.
 * @param dirs their records, each of a run or of its parts
 * @returns the results and, for the reader, the dates, grounds (accelerator and guest) and seeds of the runs
 * @throws Failure (usage) for a record that does not say what it judged, or one of other cases
 */
export function readJudged(dirs: string[]): {
  judged: Judged[]
  troubles: Failure[]
  dates: string[]
  grounds: string[]
  seeds: number[]
} {
  const runs = dirs.map((dir) => ({ dir, ...merge(readParts([dir])) }))
  const [first] = runs
  for (const { dir, plan } of runs) {
    if (!plan.subject) {
      throw usage(
        `Cannot compare \`${dir}\`: it does not say what was judged`,
        'Compare runs of just gitops-test --subject <subject>, or of just compare',
      )
    }
    if (plan.asked.toSorted().join() !== first!.plan.asked.toSorted().join()) {
      throw usage(
        `Cannot compare \`${dir}\` with \`${first!.dir}\`: they were asked for other cases`,
        'Compare runs of the same cases: choose them with --case',
      )
    }
  }
  const titles = runs.map(({ plan }) => plan.subject!.title)
  const judged = runs.map(({ dir, plan, results }, index): Judged => {
    const { title, promises: promised } = plan.subject!
    const alone = titles.indexOf(title) === titles.lastIndexOf(title)
    return {
      subject: {
        title: alone ? title : `${title}, ${index + 1}: ${basename(dir)}`,
        promises: new Set(promised as Promised[]),
      },
      ...{ results, dir },
    }
  })
  const distinct = <T>(of: (run: (typeof runs)[number]) => T): T[] => [...new Set(runs.map(of))]
  return {
    judged,
    troubles: runs.flatMap((run) => run.troubles),
    dates: distinct(({ events }) => events[0]?.at.slice(0, 10) ?? 'no date'),
    grounds: distinct(({ plan }) => withoutSubject(plan.ground)),
    seeds: distinct(({ plan }) => plan.seed),
  }
}

/** Accelerator and guest alone. */
export const withoutSubject = (ground: string): string => ground.replace(/, judged: .*/, '')

/** `unknown`: the lab could not run a case of it. */
export type Verdict = 'held' | 'broken' | 'n/a' | 'unknown'

export interface Cell {
  state: Verdict
  /** Whether the subject says that it promises it. */
  promised: boolean
  /** Sum over all its cases; 0 where none was run. */
  seconds: number
  cases: { case: string; state: CaseResult['state']; reason: string; replay: string }[]
}

export interface Row {
  promise: Promised
  what: string
  /** By the title of the subject. */
  by: Record<string, Cell>
}

/**
 * Promise by subject, for every promise that a case was about.
 * @throws Failure (usage) for a result whose case does not exist
 */
export function matrix(judged: Judged[], families: Family[]): Row[] {
  const promiseOf = new Map<string, Promised>(
    families.flatMap(({ name, cases }) =>
      cases.map((one) => [`${name}/${one.name}`, one.promise] as const),
    ),
  )
  const unknown = judged
    .flatMap(({ results }) => results.map(nameOf))
    .find((one) => !promiseOf.has(one))
  if (unknown !== undefined) {
    throw usage(
      `Cannot compare \`${unknown}\`: there is no such case`,
      'The run is from another version of the lab, or lab.toml has changed since',
    )
  }
  const rows = allPromises.map((promise): Row => {
    const by = judged.map(({ subject, results }): [string, Cell] => {
      const mine = results.filter((one) => promiseOf.get(`${one.family}/${one.case}`) === promise)
      return [subject.title, cellOf(mine, subject.promises.has(promise))]
    })
    return { promise, what: promises[promise], by: Object.fromEntries(by) }
  })
  return rows.filter(({ by }) => Object.values(by).some(({ cases }) => cases.length > 0))
}

function cellOf(results: CaseResult[], promised: boolean): Cell {
  const some = (state: CaseResult['state']): boolean => results.some((one) => one.state === state)
  return {
    // one failed case breaks the promise, whatever else held
    state: some('failed') ? 'broken' : some('error') ? 'unknown' : some('passed') ? 'held' : 'n/a',
    promised,
    seconds: results.reduce((sum, { seconds }) => sum + seconds, 0),
    cases: results.map(({ family, case: name, state, reason, replay }) => ({
      case: `${family}/${name}`,
      ...{ state, reason, replay },
    })),
  }
}

/** In words: how many of its cases held, and how long they took. */
function cellText({ state, promised, seconds, cases }: Cell): string {
  const ran = cases.filter((one) => one.state !== 'skipped')
  if (state === 'n/a') return promised ? 'n/a' : 'n/a, not promised'
  const held = ran.filter((one) => one.state === 'passed').length
  const count = `${held} of ${ran.length}, ${seconds.toFixed(0)} s`
  return `${state} (${count}${promised ? '' : ', not promised'})`
}

const colours = { held: green, broken: red, unknown: red, 'n/a': yellow }

/**
 * The matrix for a terminal, and below it the reason of each case that did not hold. The promise's text is the last
 * column, as only that may be longer than a line.
 */
export function matrixText(rows: Row[], titles: string[]): string {
  const cells = rows.map(({ promise, what, by }) => [
    promise,
    ...titles.map((title) => colours[by[title]!.state](cellText(by[title]!))),
    what,
  ])
  const why = titles.flatMap((title) =>
    rows.flatMap(({ by }) =>
      by[title]!.cases.filter(({ state }) => state === 'failed' || state === 'error').map((one) =>
        oneLine(`${title}: ${one.case}: ${one.reason.split('\n')[0]!}; replay: ${one.replay}`),
      ),
    ),
  )
  return [table([['promise', ...titles, 'what must be so'], ...cells]), ...why].join('\n')
}

/** The same as one HTML page. @param said accelerator, guest, date and seed, as one line */
export function matrixPage(rows: Row[], titles: string[], said: string): string {
  const cell = (one: Cell): string => {
    const told = one.cases.map(
      ({ case: name, state, reason }) => `${name}: ${state}${reason ? `, ${reason}` : ''}`,
    )
    return `<td class="${one.state.replace('/', '')}">${escape(cellText(one))}<ul>${told.map((line) => `<li>${escape(line)}`).join('')}</ul>`
  }
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>What held, by subject</title><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}table{border-collapse:collapse}
th,td{border:1px solid #ccc;padding:.4rem .7rem;text-align:left;vertical-align:top}ul{font-size:.8em;color:#555;margin:.3rem 0 0;padding-left:1.1em}
.held{background:#e3f4e3}.broken,.unknown{background:#f9dcdc}.na{background:#f4f1e0}
</style><h1>What held, by subject</h1><p>${escape(said)}</p>
<table><thead><tr><th>promise${titles.map((title) => `<th>${escape(title)}`).join('')}</thead><tbody>
${rows.map(({ what, by }) => `<tr><th>${escape(what)}${titles.map((title) => cell(by[title]!)).join('')}`).join('\n')}
</tbody></table></html>
`
}

/** 1 when a subject broke what it promises, 3 when the lab could not judge something, or judged nothing. */
export function matrixExit(rows: Row[]): ExitCode {
  const cells = rows.flatMap(({ by }) => Object.values(by))
  if (cells.some(({ state }) => state === 'unknown')) return Exit.labCouldNotRun
  if (cells.some(({ state, promised }) => state === 'broken' && promised)) return Exit.checkFailed
  return cells.some(({ state }) => state === 'held') ? Exit.held : Exit.labCouldNotRun
}

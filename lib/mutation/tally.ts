import { style } from '../report/report.ts'
import { escape } from '../report/timeline.ts'
import { kinds } from './edit.ts'
import { told, type Mutant } from './mutant.ts'
import { states, type State, type Verdict } from './verdicts.ts'

export type Judged = Mutant & Verdict

/** The verdicts of a group of mutants, counted, and the fraction killed of those that are not equivalent. */
export interface Tally {
  name: string
  mutants: number
  counts: Record<State, number>
  /** Between 0 and 1; undefined where all are equivalent. */
  killed?: number
}

function tally(name: string, judged: Judged[]): Tally {
  const count = (state: State): number => judged.filter((one) => one.state === state).length
  const counts = Object.fromEntries(states.map((state) => [state, count(state)])) as Tally['counts']
  const real = judged.length - counts.equivalent
  const killed = counts['killed by tests'] + counts['killed by scenarios']
  return { name, mutants: judged.length, counts, killed: real > 0 ? killed / real : undefined }
}

/** Tallies per agent, per kind, and of all mutants. */
export function tallies(judged: Judged[]): { agents: Tally[]; kinds: Tally[]; all: Tally } {
  const agents = [...new Set(judged.map(({ agent }) => agent))]
  return {
    agents: agents.map((agent) =>
      tally(
        agent,
        judged.filter((one) => one.agent === agent),
      ),
    ),
    kinds: kinds
      .map((kind) =>
        tally(
          kind,
          judged.filter((one) => one.kind === kind),
        ),
      )
      .filter(({ mutants }) => mutants > 0),
    all: tally('all', judged),
  }
}

const percent = (part: number | undefined): string =>
  part === undefined ? '-' : `${Math.floor(part * 100)} %`

export const head = (what: string): string[] => [what, 'mutants', ...states, 'killed']
export const row = ({ name, mutants, counts, killed }: Tally): string[] => [
  ...[name, `${mutants}`, ...states.map((state) => `${counts[state]}`), percent(killed)],
]

/** The verdicts as one self-contained HTML file: tables, and each mutant, the survivors first. */
export function page(judged: Judged[], about: string): string {
  const { agents, kinds: byKind, all } = tallies(judged)
  const grid = (what: string, rows: Tally[]): string =>
    `<table class="narrow"><thead><tr>${head(what)
      .map((cell) => `<th>${escape(cell)}`)
      .join('')}</tr></thead><tbody>${rows
      .map(
        (one) =>
          `<tr>${row(one)
            .map((cell, at) => `<td${at ? ' class="n"' : ''}>${escape(cell)}`)
            .join('')}</tr>`,
      )
      .join('')}</tbody></table>`
  const ordered = judged.toSorted((a, b) => urgency(a.state) - urgency(b.state))
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Mutants</title><style>${style}ins{color:var(--ok);text-decoration:none}del{color:var(--bad)}</style>
<header><h1>${percent(all.killed)} of the mutants killed</h1><p>${escape(about)}</p></header>
<main><section><h2>Per agent</h2>${grid('agent', [...agents, all])}</section>
<section><h2>Per kind</h2>${grid('kind', byKind)}</section>
<section><h2>Mutants</h2><table><thead><tr><th>mutant<th>state<th>what it does<th>found by</tr></thead><tbody>${ordered.map(mutantRow).join('')}</tbody></table></section></main></html>
`
}

const urgency = (state: State): number => ['alive', 'not run', 'equivalent'].indexOf(state) + 1 || 9
const colours: Record<State, string> = {
  'killed by tests': 'passed',
  'killed by scenarios': 'passed',
  alive: 'failed',
  'not run': 'failed',
  equivalent: 'skipped',
}

const mutantRow = (one: Judged): string =>
  `<tr><td><code>${one.id}</code><br>${escape(place(one))}<td><b class="${colours[one.state]}">${one.state}</b><td>${one.kind}${one.within ? ` in <code>${escape(one.within)}</code>` : ''}<pre><del>${escape(one.was)}</del>\n<ins>${escape(one.instead)}</ins></pre><td>${escape(one.found)}</tr>`

/** A mutant's place in the form that editors understand. */
const place = ({ file, lines: [line] }: Mutant): string => `${file}:${line}`

/** One row for each mutant that nothing has noticed. */
export const survivors = (judged: Judged[]): string[][] =>
  judged
    .filter(({ state }) => state === 'alive' || state === 'not run')
    .map((one) => [one.id, place(one), one.kind, one.state, told(one)])

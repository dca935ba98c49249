import { style } from '../report/report.ts'
import { escape } from '../report/timeline.ts'
import { counts, type Counts, type Covered } from './coverage.ts'

export interface Totals {
  lines: Counts[]
  branches: Counts[]
  /** Steps and branches that neither tests nor scenarios have run, with their place. */
  neither: { agent: string; line: number; kind: string; what: string }[]
}

/** The figures of each agent, and their sum. */
export function totals(all: Covered[]): Totals {
  const sums = (kind: 'lines' | 'branches'): Counts[] => {
    const each = all.map((one) => counts(one, kind))
    const sum = (key: 'all' | 'tests' | 'scenarios' | 'neither'): number =>
      each.reduce((total, one) => total + one[key], 0)
    const whole = { tests: sum('tests'), scenarios: sum('scenarios'), neither: sum('neither') }
    return [...each, { agent: 'all', kind, all: sum('all'), ...whole }]
  }
  const neither = all.flatMap(({ agent, units }) =>
    units
      .filter(({ tests, scenarios }) => !tests && !scenarios)
      .map(({ kind, lines: [line], what }) => ({ agent, line, kind, what })),
  )
  return { lines: sums('lines'), branches: sums('branches'), neither }
}

const of = (part: number, all: number): string =>
  all === 0 ? '-' : `${part} (${Math.floor((part / all) * 100)} %)`

/** A table of lines and branches: how many were run by tests, by scenarios, and by neither. */
export function rows(all: Covered[]): string[][] {
  const { lines, branches } = totals(all)
  const head = ['agent', 'lines', 'by tests', 'by scenarios', 'neither']
  return [
    [...head, 'branches', 'by tests', 'by scenarios', 'neither'],
    ...lines.map((one, at) => [
      one.agent,
      ...[one, branches[at]!].flatMap((each) => [
        `${each.all}`,
        of(each.tests, each.all),
        of(each.scenarios, each.all),
        `${each.neither}`,
      ]),
    ]),
  ]
}

/** The agents as one HTML file: each line is marked by what has run it; a tooltip lists what has not run. */
export function coveragePage(all: Covered[], cases: number): string {
  const [head, ...body] = rows(all)
  const cells = (row: string[], tag: string): string =>
    `<tr>${row.map((cell, at) => `<${tag}${at ? ' class="n"' : ''}>${escape(cell)}`).join('')}</tr>`
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Coverage of the agents</title><style>${style}${marks}</style>
<header><h1>Which lines of the agents have run</h1><p>By tests in scratch roots, and by ${cases} cases in VMs. An unmarked line has nothing that bash shows in a trace.</p>
<p class="source"><span class="both">by both</span> <span class="tests">by tests</span> <span class="scenarios">by scenarios</span> <span class="part">a branch not taken</span> <span class="neither">by neither</span></p></header>
<main><section><table><thead>${cells(head!, 'th')}</thead><tbody>${body.map((row) => cells(row, 'td')).join('')}</tbody></table></section>
${all.map(source).join('')}</main></html>
`
}

function source({ agent, text, units }: Covered): string {
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line, index) => {
      const here = units.filter(({ lines: [first] }) => first === index + 1)
      const steps = here.filter(({ kind }) => kind === 'step')
      const missed = here.filter(({ tests, scenarios }) => !tests && !scenarios)
      const by = (who: 'tests' | 'scenarios'): boolean => steps.some((one) => one[who])
      const ran = by('tests')
        ? by('scenarios')
          ? 'both'
          : 'tests'
        : by('scenarios')
          ? 'scenarios'
          : 'neither'
      const mark = steps.length === 0 ? '' : missed.length > 0 && ran !== 'neither' ? 'part' : ran
      const lacks = missed
        .map(({ kind, what }) => (kind === 'branch' ? `never ${what}` : what))
        .join('; ')
      return `<span class="${mark}" title="${escape(lacks)}">${String(index + 1).padStart(4)}  ${escape(line)}</span>`
    })
  return `<section><h2>${escape(agent)}</h2><details><summary>source</summary><pre class="source">${lines.join('\n')}</pre></details></section>`
}

const marks = `
.source{max-height:none}.source span{padding:0 4px;border-left:4px solid transparent}
.source .both{border-color:var(--ok)}.source .tests{border-color:var(--boot)}.source .scenarios{border-color:var(--up)}
.source .part{border-color:var(--skip);background:var(--caseskip)}.source .neither{border-color:var(--bad);background:var(--casebad)}
`

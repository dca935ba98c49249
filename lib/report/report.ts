import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Recorded } from './record.ts'
import { byState, notRun, type CaseResult } from './result.ts'
import { lastLines } from '../run.ts'
import { escape, spans, timeline } from './timeline.ts'

export interface Run {
  id: string
  hosts: string[]
  seed: number
  /** Accelerator and guest, as one line. */
  ground: string
  /** What else a reader needs to know, one line each. */
  notes?: string[]
  /** What the lab could not do after the cases, one line each. */
  troubles?: string[]
  /** Names of the timeline's VMs, if they are not the hosts'. */
  lanes?: string[]
  results: CaseResult[]
  events: Recorded[]
}

/**
 * Seconds by activity, the most first; the seconds of VMs that work side by side add up. Time outside a case, such as
 * a boot for a baseline, is part of its step's seconds.
 */
export function whereTimeWent(events: Recorded[]): [what: string, seconds: number][] {
  const sums = new Map<string, number>()
  const add = (what: string, seconds: number): void =>
    void sums.set(what, (sums.get(what) ?? 0) + seconds)
  let inCases = 0
  let inWork = 0
  for (const span of spans(events)) {
    const seconds = span.to - span.from
    if (span.kind === 'case') inCases += seconds
    if (span.kind === 'step') add(span.name, seconds)
    if (span.case === undefined) continue
    if (span.kind === 'boot') add('boots', seconds)
    if (span.kind === 'upgrade') add('upgrades', seconds)
    if (span.kind === 'work') {
      add(span.name, seconds)
      inWork += seconds
    }
  }
  for (const one of events)
    if (one.kind === 'reset' && one.case !== undefined) add('resets', Number(one['seconds'] ?? 0))
  const told = ['boots', 'upgrades', 'resets', 'oracle'].reduce(
    (sum, what) => sum + (sums.get(what) ?? 0),
    inWork,
  )
  add('the rest of the cases', Math.max(0, inCases - told))
  return [...sums].toSorted((a, b) => b[1] - a[1])
}

/** A run as one self-contained HTML file: table, timeline, and an explanation of each failure. */
export function report(run: Run): string {
  const { results, events, troubles = [] } = run
  const { passed, bad, left, skipped } = byState(results)
  const total = events.at(-1)?.t ?? 0
  const wrong = bad.length > 0 || troubles.length > 0
  const word = wrong
    ? 'Failed'
    : left.length > 0
      ? 'Not finished'
      : passed.length > 0
        ? 'Held'
        : 'Nothing was run'
  const notes = [...troubles, ...(run.notes ?? [])]
  const time = whereTimeWent(events)
    .map(([what, seconds]) => `<tr><td>${escape(what)}<td class="n">${seconds.toFixed(1)} s</tr>`)
    .join('')
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escape(run.id)}</title><style>${style}</style>
<header><h1>${word}: ${escape(run.id)}</h1>
<p><b class="passed">${passed.length} passed</b> <b class="failed">${bad.length} failed</b> ${left.length > 0 ? `<b class="failed">${left.length} not run</b> ` : ''}<b class="skipped">${skipped.length} skipped</b>
in ${total.toFixed(0)} s on ${escape(run.hosts.join(' and '))}; seed ${run.seed}; ${escape(run.ground)}</p>${notes.map((note) => `<p class="reason">${escape(note)}</p>`).join('')}</header>
<main>${bad.length > 0 ? '<h2>Failures</h2>' : ''}${bad.map((one) => failure(one)).join('')}${withoutResult(left)}
<section><h2>Cases</h2><table class="cases"><thead><tr><th>case<th>VM<th>state<th class="n">took<th>what was done</tr></thead><tbody>${results.map((one) => row(one)).join('')}</tbody></table></section>
<section><h2>Timeline</h2><div class="scroll">${timeline(events, run.lanes ?? run.hosts)}</div>
<p class="key"><span class="bar upgrade">upgrade</span> <span class="bar boot">boot</span> <span class="bar fault">fault</span> <span class="bar case passed">case passed</span> <span class="bar case failed">failed</span>; triangles: power and resets. Hover for names and seconds.</p></section>
<section><h2>Where the time went</h2><table class="narrow"><tbody>${time}</tbody></table></section></main></html>
`
}

function row(one: CaseResult): string {
  const checks = one.checks.map(({ name, held, expected, found }) =>
    line(held ? 'ok' : 'failed', name, expected, found),
  )
  const oracle = one.oracle.map(({ name, host, state, expected, found }) =>
    line(state, `${host} ${name}`.trim(), expected, found),
  )
  const reason = one.reason
    ? `<p class="reason ${one.state}">${escape(printable(one.reason))}</p>`
    : ''
  const named = `<code>${escape(`${one.family} ${one.case}`)}</code>`
  const linked =
    one.state === 'failed' || one.state === 'error'
      ? `<a href="#${anchor(one)}">${named}</a>`
      : named
  return `<tr><td>${linked}<td>${escape(one.hosts.join(', '))}<td><b class="${one.state}">${one.state}</b><td class="n">${one.seconds.toFixed(1)} s<td>${escape(one.title)}${reason}<details><summary>${one.checks.length} checks, ${one.oracle.length} rows of the oracle</summary><table class="rows"><tbody>${[...checks, ...oracle].join('')}</tbody></table></details></tr>`
}

/** The section of the page that explains a case that failed or was not run. */
const anchor = (one: CaseResult): string =>
  one.reason === notRun ? 'not-run' : escape(`${one.family}-${one.case}`)

const line = (state: string, name: string, expected: string, found: string): string =>
  `<tr class="${state === 'n/a' ? 'skipped' : state}"><td>${state}<td>${escape(name)}<td>${state === 'failed' ? `expected ${escape(expected)}, found ` : ''}${escape(printable(found))}</tr>`

function failure(one: CaseResult): string {
  return `<section class="failure" id="${anchor(one)}"><h2><b class="failed">${one.state}</b> ${escape(`${one.family} ${one.case}`)}</h2>
<p>${escape(one.title)}</p><p class="reason">${escape(printable(one.reason))}</p><p>Again: <code>${escape(one.replay)}</code></p>${one.evidence ? evidence(one.evidence) : ''}</section>`
}

/** The cases that a cut-short run did not reach, in one section: one each would hide the failures. */
const withoutResult = (left: CaseResult[]): string =>
  left.length === 0
    ? ''
    : `<section class="failure" id="not-run"><h2><b class="failed">not run</b> ${left.length} of the cases that were asked for</h2><details><summary>the command for each</summary><pre>${left.map(({ replay }) => escape(replay)).join('\n')}</pre></details></section>`

/** Lines of an evidence file that the page shows at most. */
const most = 300

/** The collected evidence: of a long file only its end, with a note saying so; a screenshot whole. */
function evidence(dir: string): string {
  const place = `<code>${escape(dir)}</code>`
  if (!existsSync(dir)) return `<p>Its evidence is not here: it was left in ${place}</p>`
  const names = readdirSync(dir, { recursive: true, encoding: 'utf8' }).toSorted()
  const shown = names
    .filter((name) => /\.\w+$/.test(name))
    .map((name) => {
      const content = readFileSync(join(dir, name))
      if (name.endsWith('.png')) {
        return `<details><summary>${escape(name)}</summary><img alt="The VM's screen" src="data:image/png;base64,${content.toString('base64')}"></details>`
      }
      const text = content.toString('utf8').trimEnd()
      const lines = text === '' ? 0 : text.split('\n').length
      const of =
        lines === 0 ? ' (empty)' : lines > most ? ` (the last ${most} of ${lines} lines)` : ''
      return `<details><summary>${escape(name)}${of}</summary><pre>${escape(printable(lastLines(text, most)))}</pre></details>`
    })
    .join('')
  return `<p>Evidence: ${place}</p><div class="files">${shown}</div>`
}

/** Removes colours, cursor moves, titles and marks, which only a terminal can read. */
const printable = (text: string): string =>
  text.replaceAll(
    // oxlint-disable-next-line no-control-regex -- exactly these are taken out
    /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b\n]*(?:\u0007|\u001b\\)|[ -/]*[0-~])|[\u0000-\u0008\u000b-\u001f\u007f]/g,
    '',
  )

export const style = `
:root{color-scheme:light dark;--fg:#1c1e21;--bg:#fff;--dim:#5d6470;--line:#d9dde3;--card:#f5f6f8;--ok:#1a7f4b;--bad:#c62f2f;--skip:#8a6a00;--boot:#3570c4;--up:#8450c4;--fault:#b45309;--caseok:#bfe3cf;--casebad:#f3b8b4;--caseskip:#ece0b4;--on:#fff}
@media(prefers-color-scheme:dark){:root{--fg:#e6e8eb;--bg:#15171a;--dim:#9aa2ad;--line:#33383f;--card:#1f2226;--ok:#58c78b;--bad:#ff7b72;--skip:#d7b443;--boot:#6ea3f0;--up:#b48aec;--fault:#ef9450;--caseok:#20482f;--casebad:#6a2724;--caseskip:#4d431c;--on:#15171a}}
*{box-sizing:border-box}body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg)}
header,.cases,.failure{overflow-wrap:anywhere}header,main{max-width:1180px;margin:0 auto;padding:0 24px}header{padding-top:28px}h1{font-size:22px;margin:0}h2{font-size:17px;margin:28px 0 8px}
p{margin:6px 0}code,pre{font:13px/1.45 ui-monospace,monospace}code{background:var(--card);padding:1px 4px;border-radius:3px}
pre{background:var(--card);padding:10px;border-radius:6px;overflow:auto;max-height:420px;margin:6px 0}
table{border-collapse:collapse;width:100%}table.narrow{width:auto}th{text-align:left;color:var(--dim);font-weight:500}td,th{padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.rows td{font-size:13px;border:0;padding:1px 10px 1px 0;white-space:pre-wrap}.rows td:first-child{white-space:nowrap}.rows td:nth-child(2){min-width:11em}
.cases>*>tr>:first-child{min-width:14em}.cases>*>tr>:nth-child(2){min-width:6em}b.passed,b.failed,b.error,b.skipped{white-space:nowrap}
b.passed,.ok td:first-child{color:var(--ok)}b.failed,b.error,.rows .failed td{color:var(--bad)}b.skipped,.rows .skipped td{color:var(--skip)}
.reason{color:var(--bad);white-space:pre-wrap}td>.reason{max-height:6em;overflow:auto}.reason.skipped{color:var(--skip)}summary{cursor:pointer;color:var(--dim);font-size:13px}
.failure{border:1px solid var(--line);border-left:4px solid var(--bad);border-radius:6px;padding:2px 16px 12px;margin:20px 0}.failure h2{margin-top:12px}
img{max-width:100%}a{color:inherit}.files{display:flex;flex-wrap:wrap;gap:0 18px}.files details[open]{flex-basis:100%}.files>details{min-width:0;max-width:100%}.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:6px;background:var(--bg)}
svg{display:block}svg text{font:11px system-ui,sans-serif;fill:var(--fg)}.axis line{stroke:var(--line)}.axis text{fill:var(--dim);text-anchor:middle}.lane{fill:var(--dim)!important}.host{font-weight:600!important;font-size:13px!important}
.bar.boot rect{fill:var(--boot)}.bar.upgrade rect{fill:var(--up)}.bar.fault rect{fill:var(--fault)}.bar.boot text,.bar.upgrade text,.bar.fault text{fill:var(--on)}
.bar.case rect,.bar.step rect{fill:var(--line)}.bar.case.passed rect{fill:var(--caseok)}.bar.case.failed rect,.bar.case.error rect{fill:var(--casebad)}.bar.case.skipped rect{fill:var(--caseskip)}
.mark.power{fill:var(--bad)}.mark.reset{fill:var(--dim)}
.key{color:var(--dim);font-size:13px}.key .bar{padding:1px 7px;border-radius:3px;color:var(--on)}.key .boot{background:var(--boot)}.key .upgrade{background:var(--up)}.key .fault{background:var(--fault)}.key .case{color:var(--fg);background:var(--caseok)}.key .case.failed{background:var(--casebad)}
@media(max-width:700px){header,main{padding-left:12px;padding-right:12px}.cases>thead{display:none}.cases,.cases>tbody,.cases>*>tr,.cases>*>tr>td{display:block}.cases>tbody>tr{border-bottom:1px solid var(--line);padding:6px 0}.cases>tbody>tr>td{border:0;padding:1px 0}.cases>tbody>tr>td:nth-child(n+2):nth-child(-n+4){display:inline;padding-right:10px}}
@media print{header,main{max-width:none}pre,td>.reason{max-height:none;overflow:visible;white-space:pre-wrap}tr{break-inside:avoid}.scroll{overflow:visible}.scroll svg{width:100%;height:auto}}
`

import type { Recorded } from './record.ts'

/** Something with a beginning and an end, in seconds since the run began. */
export interface Span {
  kind: Recorded['kind']
  name: string
  host: string
  /** The case that it was in. */
  case?: string
  from: number
  to: number
  /** State or outcome from the end event. */
  state?: string
}

/**
 * Joins the begin and end events of a record. A span that never ended, such as a boot that came too late, lasts until
 * its case ends; if the case has no end, as after a crash, until the record ends.
 */
export function spans(events: Recorded[]): Span[] {
  const last = events.at(-1)?.t ?? 0
  const ends = new Map(events.flatMap((one) => (one.of === undefined ? [] : [[one.of, one]])))
  const cases = events.filter(({ kind, phase }) => kind === 'case' && phase === 'begin')
  const endOfCase = (one: Recorded): number => {
    // controls of one case may run side by side, each on a different VM
    const around = cases.findLast(
      (each) => each.name === one.case && each.t <= one.t && hostsOf(one).some(isOf(each)),
    )
    return (around && ends.get(around.id)?.t) ?? last
  }
  return events.flatMap((one) => {
    if (one.phase !== 'begin') return []
    const end = ends.get(one.id)
    const { kind, name, t: from, case: of } = one
    const state = (end?.['state'] ?? end?.['outcome']) as string | undefined
    const to = Math.min(
      end?.t ?? last,
      one.case === undefined || kind === 'case' ? last : endOfCase(one),
    )
    return hostsOf(one).map((host) => ({ kind, name, host, case: of, from, to, state }))
  })
}

/** The VMs of an event; an empty name stands for all of them. */
const hostsOf = ({ host, hosts }: Recorded): string[] =>
  host ? [host] : ((hosts as string[] | undefined) ?? [''])

const isOf = (other: Recorded) => (host: string) => host === '' || hostsOf(other).includes(host)

const lanes: [kind: Span['kind'], label: string][] = [
  ['case', 'cases'],
  ['upgrade', 'upgrades'],
  ['boot', 'boots'],
  ['fault', 'faults'],
]
const laneHeight = 22
const left = 90

/**
 * The run as one SVG: per VM a lane each for cases, upgrades, boots and faults, and below them marks
 * for single moments (power, reset), all on one axis of seconds.
 */
export function timeline(events: Recorded[], hosts: string[]): string {
  const end = Math.max(1, events.at(-1)?.t ?? 1)
  // wide enough that a case of ten seconds can be read; the page scrolls
  const scale = Math.max(1000 / end, 4)
  const x = (t: number): number => left + t * scale
  const width = x(end) + 20
  const blockHeight = (lanes.length + 1) * laneHeight + 24
  const all = spans(events)
  const parts = hosts.map((host, index) => block(host, 14 + index * blockHeight, all, events, x))
  const height = 14 + hosts.length * blockHeight + 24
  return `<svg role="img" aria-label="Timeline of the run" width="${width.toFixed(0)}" height="${height}" viewBox="0 0 ${width.toFixed(0)} ${height}">${axis(end, x, height)}${parts.join('')}</svg>`
}

function block(
  host: string,
  top: number,
  all: Span[],
  events: Recorded[],
  x: (t: number) => number,
): string {
  const rows = lanes.map(([kind, label], row) => {
    const y = top + 18 + row * laneHeight
    const bars = all
      // a fault between two VMs is on both
      .filter((span) => laneOf(span) === kind && (span.host === host || span.host === ''))
      .map((span) => bar(span, y, x))
    return `<text class="lane" x="4" y="${y + 14}">${label}</text>${bars.join('')}`
  })
  const y = top + 18 + lanes.length * laneHeight
  const marks = events
    .filter((one) => one.host === host && !one.phase && ['power', 'reset'].includes(one.kind))
    .map((one) => {
      const at = x(one.t).toFixed(1)
      const { reason } = one
      const what = `${one.name}${typeof reason === 'string' ? `: ${reason}` : ''} at ${one.t.toFixed(1)} s`
      return `<path class="mark ${one.kind}" d="M${at} ${y + 3}l5 12h-10z"><title>${escape(what)}</title></path>`
    })
  const share = busy(all, host)
  const words = share === undefined ? '' : `busy ${Math.round(100 * share)} %`
  return `<text class="host" x="4" y="${top + 10}">${escape(host)} <tspan class="lane">${words}</tspan></text>${rows.join('')}<text class="lane" x="4" y="${y + 14}">power</text>${marks.join('')}`
}

/**
 * The share of the time from the beginning of the first case to the end of the last in which a VM was running a case
 * (or the cut that precedes it). Undefined if there is no case.
 */
function busy(all: Span[], host: string): number | undefined {
  const work = all.filter(
    ({ kind, name }) => kind === 'case' || (kind === 'step' && name === 'cut'),
  )
  const from = Math.min(...work.map((span) => span.from))
  const to = Math.max(...work.map((span) => span.to))
  if (!(to > from)) return undefined
  const own = work.filter((span) => span.host === host)
  return own.reduce((sum, span) => sum + span.to - span.from, 0) / (to - from)
}

/** Steps that prepare a VM are shown in the lane of its cases. */
const laneOf = ({ kind, name }: Span): Span['kind'] =>
  kind === 'step' && name !== 'oracle' ? 'case' : kind

function bar(span: Span, y: number, x: (t: number) => number): string {
  const from = x(span.from)
  const width = Math.max(2, x(span.to) - from)
  const label =
    span.kind === 'case' ? (span.name.split('/').at(-1) ?? '') : span.name.replace(/^wait to /, '')
  const fits = width > label.length * 6.2 + 6
  const text = fits
    ? `<text x="${(from + 4).toFixed(1)}" y="${y + 13}">${escape(label)}</text>`
    : ''
  const what = `${span.name}${span.state ? `: ${span.state}` : ''}, ${(span.to - span.from).toFixed(1)} s from ${span.from.toFixed(1)} s`
  return `<g class="bar ${span.kind} ${span.kind === 'case' ? escape(span.state ?? 'open') : ''}"><title>${escape(what)}</title><rect x="${from.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${laneHeight - 4}" rx="3"/>${text}</g>`
}

function axis(end: number, x: (t: number) => number, height: number): string {
  const step = [5, 10, 30, 60, 120, 300].find((one) => x(one) - x(0) >= 70) ?? 600
  const ticks: string[] = []
  for (let t = 0; t <= end; t += step) {
    const at = x(t).toFixed(1)
    ticks.push(
      `<line x1="${at}" x2="${at}" y1="8" y2="${height - 20}"/><text x="${at}" y="${height - 6}">${t} s</text>`,
    )
  }
  return `<g class="axis">${ticks.join('')}</g>`
}

export const escape = (text: string): string =>
  text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')

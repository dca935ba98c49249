import stringWidth from 'string-width'
import cliTruncate from 'cli-truncate'
import { oneLine } from '../failure.ts'
import { estimate, lasting } from './estimate.ts'
import type { SeenLane, SeenStep } from './seen.ts'

export interface FrameOptions {
  columns: number
  rows: number
  now: number
  /** Leaves out steps that passed or are pending, and ends with one line for the whole run. */
  folded: boolean
  /** Nothing is running any more: this frame is the last one and stays. */
  ended: boolean
  /** The task prints the reasons of failures once all has ended. */
  reasonsFollow: boolean
  marks: Marks
}

/** The coloured marks before steps; each is one column wide. */
export interface Marks {
  done: string
  failed: string
  skipped: string
  atWork: string
  dim: (text: string) => string
}

interface Line {
  text: string
  /** If the screen is too short, the lines of the highest rank are dropped first. */
  rank: number
}

const ranks = { whole: 0, lane: 1, atWork: 2, says: 3, failed: 4, done: 6, outcome: 7, pending: 8 }

/**
 * The lines that show lanes of steps on a screen: at most one less than its rows, because the cursor takes the
 * last one, and none wider than the screen. A short screen drops lines in this order: pending steps, outcomes
 * of steps, steps that are done, failures from the oldest on, waits.
 */
export function frame(lanes: SeenLane[], options: FrameOptions): string[] {
  const { columns, rows, now, folded } = options
  const room = Math.max(1, rows - 1)
  const linesWith = (short: boolean): Line[] => [
    ...lanes.flatMap((lane) => linesOf(lane, { ...options, short })),
    ...(folded ? [{ text: wholeOf(lanes, now), rank: ranks.whole }] : []),
  ]
  const whole = linesWith(false)
  const lines = folded && whole.length > room ? linesWith(true) : whole
  const kept = new Set(
    lines
      .map((line, at) => ({ ...line, at }))
      .toSorted((a, b) => a.rank - b.rank || a.at - b.at)
      .slice(0, room)
      .map(({ at }) => at),
  )
  return lines.filter((_, at) => kept.has(at)).map(({ text }) => shortened(text, columns - 1))
}

/** Cuts a text to a width, at its end. */
function shortened(text: string, width: number): string {
  const most = Math.max(2, width)
  const cut = cliTruncate(text, most)
  // a wide character at the cut may be one column too wide
  return stringWidth(cut) > most ? cliTruncate(text, most - 1) : cut
}

/** A step's line; if it is too long, its title is shortened and its time stays. */
function titled(mark: string, title: string, time: string, columns: number): string {
  const room = columns - 6 - stringWidth(time)
  return `  ${mark} ${shortened(oneLine(title), room)}${time}`
}

/** Such as `37 of 87, 1 failed, 14 min, about 19 min left`. */
export function wholeOf(lanes: SeenLane[], now: number): string {
  const steps = lanes.flatMap((lane) => lane.steps)
  const from = Math.min(...steps.map((step) => step.from ?? now))
  const left = estimate(lanes, now)
  return [
    countOf(steps),
    lasting((now - from) / 1000),
    left !== undefined && left > 0 && `about ${lasting(left)} left`,
  ]
    .filter(Boolean)
    .join(', ')
}

/**
 * Such as `37 of 87, 1 failed`.
 * @param open more steps may come, so no total is shown: `37 ended, 1 failed`
 */
function countOf(steps: SeenStep[], open = false): string {
  const count = (...states: SeenStep['state'][]): number =>
    steps.filter(({ state }) => states.includes(state)).length
  const failed = count('failed')
  const skipped = count('skipped')
  return [
    `${count('done', 'failed', 'skipped')} ${open ? 'ended' : `of ${steps.length}`}`,
    failed > 0 && `${failed} failed`,
    skipped > 0 && `${skipped} skipped`,
  ]
    .filter(Boolean)
    .join(', ')
}

/** @param options.short shows a failure on one line: its reason, which names the step */
function linesOf(lane: SeenLane, options: FrameOptions & { short: boolean }): Line[] {
  const { folded } = options
  const waits = lane.after && lane.steps.every(({ state }) => state === 'pending')
  // leave out a VM that has not taken a step yet, and an empty list of steps to come
  if (lane.shares && lane.steps.length === 0) return []
  const open = lane.shares === 'takes'
  const count = lane.shares === 'to come' ? String(lane.steps.length) : countOf(lane.steps, open)
  const head = folded ? `${lane.title}: ${count}${waits ? ', after the others' : ''}` : lane.title
  const byRecency = lane.steps
    .filter(({ state }) => state === 'failed')
    .toSorted((a, b) => (b.to ?? 0) - (a.to ?? 0))
  return [
    { text: head, rank: ranks.lane },
    ...lane.steps.flatMap((step, at) => {
      // the newest failure is dropped last, and its reason just before it
      if (step.state === 'failed') {
        const age = byRecency.indexOf(step) / 1000
        if (options.short && step.outcome) {
          const reason = oneLine(step.outcome.split('\n')[0]!)
          return [{ text: `  ${options.marks.failed} ${reason}`, rank: ranks.failed + age }]
        }
        return linesOfEnded(step, ranks.failed + age, ranks.failed + age, options)
      }
      if (step.state === 'at work') return linesAtWork(step, options)
      if (step.state === 'pending') {
        const later = ranks.pending + at / 1000
        return folded ? [] : [{ text: `    ${step.title}`, rank: later }]
      }
      if (folded && step.state === 'done') return []
      return linesOfEnded(step, ranks.done - at / 1000, ranks.outcome - at / 1000, options)
    }),
  ]
}

function linesAtWork(step: SeenStep, { marks, now, columns }: FrameOptions): Line[] {
  const seconds = (now - (step.from ?? now)) / 1000
  const usually = step.usually === undefined ? '' : ` of about ${lasting(step.usually)}`
  const time = marks.dim(` ${lasting(seconds)}${usually}`)
  return [
    { text: titled(marks.atWork, step.title, time, columns), rank: ranks.atWork },
    ...(step.says ? [{ text: `    ${oneLine(step.says)}`, rank: ranks.says }] : []),
  ]
}

function linesOfEnded(
  step: SeenStep,
  rank: number,
  outcomeRank: number,
  { marks, columns, ended, reasonsFollow }: FrameOptions,
): Line[] {
  const { state, outcome } = step
  const mark = state === 'failed' ? marks.failed : state === 'skipped' ? marks.skipped : marks.done
  const took =
    state === 'skipped' || step.from === undefined || step.to === undefined
      ? ''
      : marks.dim(` (${((step.to - step.from) / 1000).toFixed(1)} s)`)
  const told = state === 'failed' && ended && reasonsFollow
  const words = outcome && !told ? oneLine(outcome.split('\n')[0]!) : ''
  // the last frame shows it in full, because it is printed nowhere else
  const whole = ended ? wrap(words, columns - 5) : [words]
  return [
    { text: titled(mark, step.title, took, columns), rank },
    ...(words ? whole.map((line) => ({ text: `    ${line}`, rank: outcomeRank })) : []),
  ]
}

/** Breaks a text between its words. A word that is wider than a line stays whole. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const longer = `${lines.at(-1)} ${word}`
    if (lines.length > 0 && stringWidth(longer) <= width) lines[lines.length - 1] = longer
    else lines.push(word)
  }
  return lines
}

import { lasting } from './estimate.ts'
import { wholeOf } from './frame.ts'
import type { SeenLane, SeenStep } from './seen.ts'

/** Seconds after which a wait that only counts up is printed again, and after which silence is broken. */
const again = { wait: 30, silence: 60 }

/** Progress as lines that are never redrawn: in a pipe, in CI's log, on a dumb terminal. */
export interface PlainLines {
  /** Prints what a step says, but no wait that has just begun, and not every second of one that counts up. */
  say: (lane: SeenLane, line: string) => void
  /** The title of a step that has ended: with its time, and with its number if steps are counted. */
  ended: (lane: SeenLane, step: SeenStep) => string
  begin: () => void
  end: () => void
}

/** @param write prints one line */
export function plainLines(
  lanes: SeenLane[],
  counted: boolean,
  write: (line: string) => void,
): PlainLines {
  const last = new Map<SeenLane, { kind: string; at: number }>()
  const steps = lanes.flatMap((lane) => lane.steps)
  let spoke = performance.now()
  let timer: NodeJS.Timeout | undefined

  const stillAtWork = (): void => {
    const now = performance.now()
    if (now - spoke < again.silence * 1000) return
    spoke = now
    const atWork = lanes.flatMap(({ title, steps: own }) =>
      own
        .filter(({ state }) => state === 'at work')
        .map((step) => `${title}: ${step.title}: ${lasting((now - (step.from ?? now)) / 1000)}`),
    )
    for (const line of counted ? [wholeOf(lanes, now), ...atWork] : atWork) write(line)
  }
  return {
    say: (lane, line) => {
      if (!line || / 0 s of at most /.test(line)) return
      const kind = line.replaceAll(/\d+/g, '#')
      const before = last.get(lane)
      const now = performance.now()
      if (before?.kind === kind && now - before.at < again.wait * 1000) return
      last.set(lane, { kind, at: now })
      spoke = now
      write(`${lane.title}: ${line}`)
    },
    ended: (lane, { title, from, to }) => {
      spoke = performance.now()
      const ended = steps.filter(({ to: when }) => when !== undefined).length
      const count = counted ? `[${ended}/${steps.length}] ` : ''
      const seconds = ((to ?? 0) - (from ?? 0)) / 1000
      return `${count}${lane.title}: ${title} (${seconds.toFixed(1)} s)`
    },
    begin: () => {
      timer = setInterval(stillAtWork, 1000)
    },
    end: () => clearInterval(timer),
  }
}

import type { SeenLane, SeenStep } from './seen.ts'

/** Weight of the assumption that this machine is as fast as the earlier one, in seconds of steps that are done. */
const trust = 180

/**
 * Seconds until all lanes have ended, from what each step took before. Lanes run side by side; `after` lanes
 * follow the others. The speed that this machine has shown so far is taken into account. Undefined if no
 * remaining step has an earlier time.
 */
export function estimate(lanes: SeenLane[], now: number): number | undefined {
  const steps = lanes.flatMap((lane) => lane.steps)
  const left = steps.filter(({ state }) => state === 'pending' || state === 'at work')
  if (left.every(({ usually }) => usually === undefined)) return undefined
  const done = steps.filter(({ state, usually }) => state === 'done' && usually !== undefined)
  const took = done.reduce((sum, step) => sum + secondsOf(step, now), 0)
  const before = done.reduce((sum, step) => sum + step.usually!, 0)
  const pace = (took + trust) / (before + trust)
  const known = steps.flatMap(({ usually }) => usually ?? [])
  const mean = known.reduce((sum, seconds) => sum + seconds, 0) / known.length
  const leftOf = ({ steps: own }: SeenLane): number =>
    own.reduce((sum, step) => {
      const whole = (step.usually ?? mean) * pace
      if (step.state === 'pending') return sum + whole
      return step.state === 'at work' ? sum + Math.max(0, whole - secondsOf(step, now)) : sum
    }, 0)
  const longest = (some: SeenLane[]): number => Math.max(0, ...some.map(leftOf))
  const taking = lanes.filter(({ shares }) => shares === 'takes')
  if (taking.length > 0) {
    return lanes.reduce((sum, lane) => sum + leftOf(lane), 0) / taking.length
  }
  return longest(lanes.filter(({ after }) => !after)) + longest(lanes.filter(({ after }) => after))
}

const secondsOf = ({ from, to }: SeenStep, now: number): number =>
  from === undefined ? 0 : ((to ?? now) - from) / 1000

/** A duration for people: `42 s`, `14 min`, `1 h 5 min`. */
export function lasting(seconds: number): string {
  if (seconds < 90) return `${Math.floor(seconds)} s`
  const minutes = Math.round(seconds / 60)
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

import { Failure } from './failure.ts'
import { Lost, share } from './share.ts'
import { viewOf, type LanesOptions, type Outcome } from './steps.ts'
import type { SeenLane, SeenStep } from './view/seen.ts'

/** A case that any lab can run. */
export interface SharedStep<L> {
  title: string
  /** Number of VMs that it needs: one, or all of a lab. */
  vms: number
  /** Seconds that it took before, if known. `seconds` is an estimate, by which the longest case comes first. */
  usually?: number
  seconds: number
  /**
   * @param vms which of the lab's VMs it gets
   * @param say replaces the line under the step
   * @throws Lost if the lab has become unusable
   */
  run: (lab: L, vms: number[], say: (line: string) => void) => Promise<Outcome>
}

export interface SharingLab<L> {
  /** Titles of its VMs, in their order. */
  titles: string[]
  ready: L | Promise<L>
}

/**
 * Runs cases in several labs side by side, each on the next free VMs, and shows them as `runLanes` does. A case
 * that fails is shown as failed, and nothing is thrown.
 * @param lost called for each lab that has become unusable
 * @returns the cases that were not run because no lab was left
 */
export async function runShared<L, S extends SharedStep<L>>(
  steps: S[],
  labs: SharingLab<L>[],
  lost: (index: number, why: Failure) => void,
  { quiet }: Pick<LanesOptions, 'quiet'> = {},
): Promise<S[]> {
  const vms = labs[0]!.titles.length
  const seenOf = new Map(
    steps.map((step): [S, SeenStep] => {
      const { title, usually } = step
      return [step, { title, usually, state: 'pending' }]
    }),
  )
  const taking = labs.map(({ titles }) =>
    titles.map((title): SeenLane => ({ title, steps: [], shares: 'takes' })),
  )
  const toCome: SeenLane = { title: 'to come', steps: [...seenOf.values()], shares: 'to come' }
  const view = await viewOf([...taking.flat(), toCome], { quiet, cases: true })
  const move = (one: SeenStep, from: SeenLane, to: SeenLane): void => {
    from.steps.splice(from.steps.indexOf(one), 1)
    to.steps.push(one)
  }

  const run = async (step: S, lab: L, own: number[], index: number): Promise<void> => {
    const one = seenOf.get(step)!
    const of = taking[index]![own[0]!]!
    const { titles } = labs[index]!
    one.title = own.length > 1 ? `${step.title} (with ${titles[own[1]!]})` : step.title
    move(one, toCome, of)
    Object.assign(one, { state: 'at work', from: performance.now() })
    view.changed()
    view.line('STARTED', `${of.title}: ${one.title}`)
    const ends = (state: 'done' | 'skipped' | 'failed', outcome?: string): void => {
      Object.assign(one, { state, outcome, to: performance.now() })
      const what = { done: 'COMPLETED', skipped: 'SKIPPED', failed: 'FAILED' } as const
      view.line(what[state], [view.ended(of, one), outcome].filter(Boolean).join(': '))
    }
    try {
      const outcome = await step.run(lab, own, (line) => view.say(of, one, line))
      if (typeof outcome === 'object') ends('skipped', outcome.skipped)
      else ends('done')
    } catch (thrown) {
      if (thrown instanceof Lost) {
        Object.assign(one, { state: 'pending', from: undefined, says: undefined })
        move(one, of, toCome)
        view.line('FAILED', `${of.title}: ${thrown.message}`)
        throw thrown
      }
      if (!(thrown instanceof Failure)) throw thrown
      ends('failed', thrown.message)
    }
  }
  view.begin()
  try {
    return await share(
      steps,
      labs.map(async ({ ready }, index) => ({ lab: await ready, index })),
      {
        vms,
        needs: (step) => step.vms,
        seconds: (step) => step.seconds,
        run: (step, { lab, index }, own) => run(step, lab, own, index),
        lost,
      },
    )
  } finally {
    view.end()
  }
}

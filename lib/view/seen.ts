/** A step as the user sees it. */
export interface SeenStep {
  title: string
  state: 'pending' | 'at work' | 'done' | 'skipped' | 'failed'
  /** Milliseconds, as `performance.now()` counts them. */
  from?: number
  to?: number
  /** Its current wait. */
  says?: string
  /** Its result when it is done, or why it was skipped or failed. */
  outcome?: string
  /** Seconds that it took before. */
  usually?: number
}

export interface SeenLane {
  title: string
  steps: SeenStep[]
  /** Begins when the others have ended. */
  after?: boolean
  /** A lane that takes its steps from the lane `to come`: a step moves to the lane that takes it. */
  shares?: 'takes' | 'to come'
}

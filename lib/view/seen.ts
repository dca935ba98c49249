/** A step as a person sees it. */
export interface SeenStep {
  title: string
  state: 'pending' | 'at work' | 'done' | 'skipped' | 'failed'
  /** Milliseconds, as `performance.now()` counts them. */
  from?: number
  to?: number
  /** The wait that it is in. */
  says?: string
  /** What stays of it when it is done, or why it was skipped or failed. */
  outcome?: string
  /** Seconds that it took before. */
  usually?: number
}

export interface SeenLane {
  title: string
  steps: SeenStep[]
  /** Begins when the others have ended. */
  after?: boolean
  /** One of several that take their steps from what is to come: a step is on its lane from then on. */
  shares?: 'takes' | 'to come'
}

import type { ListrTask } from 'listr2'
import { Failure, together } from './failure.ts'
import type { SeenLane, SeenStep } from './view/seen.ts'

/** The result of a step in one line, or why there was nothing to do after all. */
export type Outcome = string | { skipped: string } | void

/** One step of a task: its title is what the log calls it. */
export interface Step<C> {
  title: string | ((context: C) => string)
  /** What the step would do, one line per effect; `--dry-run` prints these and runs nothing. */
  would: (context: C) => string[] | Promise<string[]>
  /** Why the step has nothing to do, or false. */
  skip?: (context: C) => string | false
  /** Seconds that it took before, used to estimate the time that is left. */
  usually?: number
  /** `say` replaces the line under the step: the current wait and its limit. */
  run: (context: C, say: (line: string) => void) => Promise<Outcome>
}

/** A chain of steps for one thing, such as a VM; several lanes run side by side. */
export interface Lane<C> {
  title: string
  context: C
  steps: Step<C>[]
  /** Begins when all lanes without this flag have ended, as for steps that need both VMs. */
  after?: boolean
}

export interface LanesOptions {
  /** Shows nothing. */
  quiet?: boolean
  /** Called with the current wait of a quiet run. */
  say?: (line: string) => void
  /**
   * The steps are cases: if one fails, its reason stays visible, the lane goes on with the next one, and only
   * bugs are thrown. They are counted, and those that passed fold away.
   */
  cases?: boolean
}

/**
 * Runs each lane's steps in order, and the lanes side by side. In a terminal this is a live view;
 * under CI or in a pipe it is plain lines. Progress goes to standard error, so that standard output
 * holds only the task's answer. All lanes run to their end; then the first failure is thrown, with
 * the others attached.
 */
export async function runLanes<C>(
  lanes: Lane<C>[],
  { quiet = false, say, cases = false }: LanesOptions = {},
): Promise<void> {
  const { Listr } = await import('listr2')
  const seen = lanes.map(({ title, after, steps, context }): SeenLane => ({
    title,
    after,
    steps: steps.map((step) => ({
      title: titleOf(step, context),
      state: 'pending',
      usually: step.usually,
    })),
  }))
  const view = await viewOf(seen, { quiet, say, cases })
  const failures: unknown[] = []

  const asTask = (lane: Lane<C>, step: Step<C>, of: SeenLane, one: SeenStep): ListrTask => ({
    title: `${lane.title}: ${one.title}`,
    task: async (_, listrTask) => {
      const ends = (state: SeenStep['state'], outcome?: string): void => {
        Object.assign(one, { state, outcome, to: performance.now() })
        listrTask.title = view.ended(of, one)
      }
      const skipped = (why: string): void => {
        ends('skipped', why)
        listrTask.skip(why)
      }
      Object.assign(one, { state: 'at work', from: performance.now() })
      view.changed()
      try {
        const nothing = step.skip?.(lane.context)
        if (nothing) return skipped(nothing)
        const outcome = await step.run(lane.context, (line) => view.say(of, one, line))
        if (typeof outcome === 'object') return skipped(outcome.skipped)
        if (outcome) view.say(of, one, outcome)
        ends('done', outcome ?? undefined)
      } catch (thrown) {
        ends('failed', thrown instanceof Failure ? thrown.message : String(thrown))
        // a case that failed has its own result; a bug of the lab has none
        if (!cases || !(thrown instanceof Failure)) failures.push(thrown)
        throw thrown
      }
    },
  })
  // the inner list is returned and not run here: two renderers cannot share the terminal
  const inside = (some: SeenLane[]): ListrTask => ({
    task: (_, all) =>
      all.newListr(
        some.map((of) => {
          const lane = lanes[seen.indexOf(of)]!
          const steps = lane.steps.map((step, at) => asTask(lane, step, of, of.steps[at]!))
          return {
            title: lane.title,
            task: (_own, one) => one.newListr(steps, { concurrent: false, exitOnError: !cases }),
          } satisfies ListrTask
        }),
        { concurrent: true, exitOnError: false },
      ),
  })
  const list = new Listr(
    [inside(seen.filter(({ after }) => !after)), inside(seen.filter(({ after }) => after))],
    {
      concurrent: false,
      exitOnError: false,
      // the task handles Ctrl-C itself and says what still runs
      registerSignalListeners: false,
      ...view.renderer,
    } as never,
  )
  view.begin()
  try {
    await list.run()
  } finally {
    view.end()
  }
  if (failures.length > 0) throw together(failures)
}

/** Shows the progress of the lanes. */
export interface View {
  /** For listr2. */
  renderer: object
  begin: () => void
  /** Reports the begin or end of a step that listr2 does not run; only the plain view prints it. */
  line: (what: 'STARTED' | 'COMPLETED' | 'FAILED' | 'SKIPPED', title: string) => void
  say: (lane: SeenLane, step: SeenStep, line: string) => void
  changed: () => void
  /** @returns the title of the ended step */
  ended: (lane: SeenLane, step: SeenStep) => string
  end: () => void
}

/** The view that suits the options and standard error: hidden, live or plain. */
export const viewOf = async (
  seen: SeenLane[],
  { quiet = false, say, cases = false }: LanesOptions,
): Promise<View> =>
  quiet ? hidden(say) : isLive() ? await live(seen, cases) : await plain(seen, cases)

const hidden = (say?: (line: string) => void): View => ({
  renderer: { renderer: 'silent' },
  begin: () => {},
  line: () => {},
  say: (_lane, step, line) => say?.(line && `${step.title}: ${line}`),
  changed: () => {},
  ended: (_, { title }) => title,
  end: () => {},
})

/** Whether standard error is a terminal that can be drawn on. */
const isLive = (): boolean =>
  process.stderr.isTTY && !process.env['CI'] && process.env['TERM'] !== 'dumb'

async function live(seen: SeenLane[], cases: boolean): Promise<View> {
  const { liveView } = await import('./view/live.ts')
  // the view shows why a case failed; why a step failed is printed by the task, below the view
  const view = liveView(process.stderr, seen, { folded: cases, reasonsFollow: !cases })
  return {
    ...hidden(),
    ...view,
    say: (_lane, step, line) => {
      step.says = line
      view.changed()
    },
    ended: (_lane, { title }) => {
      view.changed()
      return title
    },
  }
}

async function plain(seen: SeenLane[], cases: boolean): Promise<View> {
  const { LISTR_LOGGER_STYLE, ListrLogger, ListrLogLevels, ProcessOutput } = await import('listr2')
  const { plainLines } = await import('./view/plain.ts')
  const logger = new ListrLogger({
    ...LISTR_LOGGER_STYLE,
    processOutput: new ProcessOutput(process.stderr, process.stderr),
  })
  const write = (line: string): void => logger.log(ListrLogLevels.OUTPUT, line)
  const lines = plainLines(seen, cases, write)
  return {
    ...hidden(),
    ...lines,
    renderer: { renderer: 'simple', rendererOptions: { logger }, fallbackRendererCondition: false },
    line: (what, title) => logger.log(ListrLogLevels[what], title),
    say: (lane, _step, line) => lines.say(lane, line),
  }
}

/** Prints what the lanes would do and runs nothing. If one effect cannot be determined, nothing is printed. */
export async function dryRun<C>(lanes: Lane<C>[], json = false): Promise<void> {
  const lines: string[] = []
  const data: { of: string; step: string; skipped?: string; would: string[] }[] = []
  for (const lane of lanes) {
    lines.push(lane.title)
    for (const step of lane.steps) {
      const title = `  ${titleOf(step, lane.context)}`
      const skipped = step.skip?.(lane.context)
      const effects = skipped ? [] : await step.would(lane.context)
      if (skipped) lines.push(`${title}: nothing to do, ${skipped}`)
      else lines.push(title, ...effects.map((line) => `    would ${line}`))
      data.push({
        of: lane.title,
        step: title.trim(),
        skipped: skipped || undefined,
        would: effects,
      })
    }
  }
  console.log(json ? JSON.stringify(data, undefined, 2) : lines.join('\n'))
}

const titleOf = <C>(step: Step<C>, context: C): string =>
  typeof step.title === 'string' ? step.title : step.title(context)

import type { ListrTask } from 'listr2'
import { explain } from './failure.ts'

/** One step of a task: its title is what the log calls it. */
export interface Step<C> {
  title: string | ((context: C) => string)
  /** What the step would do, one line per effect; `--dry-run` prints these and runs nothing. */
  would: (context: C) => string[] | Promise<string[]>
  /** Why the step has nothing to do, or false. */
  skip?: (context: C) => string | false
  /** `say` replaces the line under the step: the wait that it is in, and its limit. */
  run: (context: C, say: (line: string) => void) => Promise<void>
}

/** A chain of steps for one thing, such as a VM; several lanes run side by side. */
export interface Lane<C> {
  title: string
  context: C
  steps: Step<C>[]
}

/**
 * Runs each lane's steps in order, and the lanes side by side. In a terminal this is a live tree;
 * under CI or in a pipe it is plain lines. Progress goes to standard error, so that standard output
 * is the task's answer alone. All lanes run to their end; then the first failure is thrown.
 * @param carryOn a step's failure is shown and the lane's next step runs; nothing is thrown
 * @returns seconds that each step took, by lane and title
 */
export async function runLanes<C>(
  lanes: Lane<C>[],
  quiet = false,
  carryOn = false,
): Promise<Map<string, number>> {
  const { Listr, ListrLogger, ProcessOutput } = await import('listr2')
  const took = new Map<string, number>()
  const failures: unknown[] = []
  const live = process.stderr.isTTY && !process.env['CI'] && !quiet
  const logger = new ListrLogger({
    processOutput: new ProcessOutput(process.stderr, process.stderr),
  })
  // plain lines of several lanes are mixed, so each says whose it is
  const titleIn = (lane: Lane<C>, step: Step<C>): string =>
    live ? titleOf(step, lane.context) : `${lane.title}: ${titleOf(step, lane.context)}`
  const asTask = (lane: Lane<C>, step: Step<C>): ListrTask => ({
    title: titleIn(lane, step),
    skip: () => step.skip?.(lane.context) || false,
    task: async (_, listrTask) => {
      const from = performance.now()
      await step.run(
        lane.context,
        live ? (line) => (listrTask.output = line) : plainly(lane, listrTask),
      )
      const seconds = (performance.now() - from) / 1000
      took.set(`${lane.title}: ${titleOf(step, lane.context)}`, seconds)
      listrTask.title = `${titleIn(lane, step)} (${seconds.toFixed(1)} s)`
    },
  })
  const list = new Listr(
    lanes.map((lane) => ({
      title: lane.title,
      task: async (_, parent) => {
        const inner = parent.newListr(
          lane.steps.map((step) => asTask(lane, step)),
          { concurrent: false, exitOnError: !carryOn },
        )
        await inner.run().catch((error: unknown) => {
          failures.push(error)
          throw error
        })
      },
    })),
    {
      concurrent: true,
      exitOnError: false,
      renderer: quiet ? 'silent' : live ? 'default' : 'simple',
      rendererOptions: live
        ? {
            logger,
            collapseSubtasks: false,
            collapseErrors: false,
            showErrorMessage: false,
            formatOutput: 'truncate',
          }
        : { logger },
      fallbackRendererCondition: false,
    } as never,
  )
  await list.run()
  for (const other of failures.slice(1)) process.stderr.write(`${explain('also', other)}\n`)
  if (failures.length > 0) throw failures[0]
  return took
}

/** For plain lines: a wait that only counts up is said again every 10 s, and each line says whose it is. */
function plainly(lane: { title: string }, listrTask: { output: string }): (line: string) => void {
  let last = ''
  let at = 0
  return (line) => {
    const kind = line.replaceAll(/\d+/g, '#')
    if (kind === last && performance.now() - at < 10_000) return
    last = kind
    at = performance.now()
    listrTask.output = `${lane.title}: ${line}`
  }
}

/** Prints what the lanes would do; runs nothing. */
export async function dryRun<C>(lanes: Lane<C>[]): Promise<void> {
  for (const lane of lanes) {
    console.log(lane.title)
    for (const step of lane.steps) {
      const skipped = step.skip?.(lane.context)
      if (skipped) console.log(`  ${titleOf(step, lane.context)}: nothing to do, ${skipped}`)
      else {
        console.log(`  ${titleOf(step, lane.context)}`)
        for (const line of await step.would(lane.context)) console.log(`    would ${line}`)
      }
    }
  }
}

const titleOf = <C>(step: Step<C>, context: C): string =>
  typeof step.title === 'string' ? step.title : step.title(context)

/**
 * A task like any other whose steps only take a while: it tests the view, Ctrl-C and exit codes in seconds
 * and without a VM.
 */
import { Exit, Failure, type ExitCode } from '../../lib/failure.ts'
import { counting, pause } from '../../lib/retry.ts'
import { runLanes, type Lane, type Step } from '../../lib/steps.ts'
import { main, type Args } from '../../lib/task.ts'

const options = {
  lanes: { type: 'string', array: true, default: ['sorrow', 'torment'], describe: 'Lanes' },
  steps: { type: 'number', default: 3, describe: 'Steps of each lane' },
  take: { type: 'string', default: '0.05', describe: 'Seconds of each step' },
  fail: { type: 'string', array: true, default: [], describe: 'Steps that fail, as <lane>/<n>' },
  hold: { type: 'string', array: true, default: [], describe: 'Steps that go on for a minute' },
  cases: {
    type: 'boolean',
    describe: 'The steps are cases; the last lane begins after the others',
  },
} as const

async function run(args: Args): Promise<ExitCode> {
  const names = args['lanes'] as string[]
  const [fail, hold] = [args['fail'], args['hold']] as string[][]
  const take = Number(args['take'])
  const cases = Boolean(args['cases'])
  const step = (lane: string, n: number): Step<undefined> => ({
    title: `step ${n}: what the ${n}th step of ${lane} does, in words that take up some room on a line`,
    would: () => [],
    usually: cases ? 20 : undefined,
    run: async (_, say) => {
      const name = `${lane}/${n}`
      const limit = 60
      const seconds = hold!.includes(name) ? limit : take
      await counting(`step ${n} of ${lane}`, limit, say, () => pause(seconds))
      if (!fail!.includes(name)) return cases ? undefined : `left by step ${n} of ${lane}`
      throw new Failure(`Cannot do step ${n} of \`${lane}\``, {
        hint: `do step ${n} of ${lane} by hand`,
        exit: Exit.checkFailed,
      })
    },
  })
  await runLanes(
    names.map((title, at): Lane<undefined> => ({
      title,
      context: undefined,
      steps: Array.from({ length: Number(args['steps']) }, (_, n) => step(title, n + 1)),
      after: cases && at > 1,
    })),
    { cases },
  )
  console.log('All steps were run')
  return Exit.held
}

await main(import.meta, {
  name: 'steps',
  describe: 'Take a while',
  options,
  under: ['nothing'],
  examples: [],
  run,
})

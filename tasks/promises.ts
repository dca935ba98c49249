import type { ExitCode } from '../lib/failure.ts'
import { describe } from '../lib/scenario/own-promises.ts'
import { scenario } from '../lib/scenario/scenario.ts'
import { main, type Args, type Task } from '../lib/task.ts'
import { families } from './pipelines/families.ts'

const scenarios = scenario({ name: 'promises', describe, cases: [] })

export const task: Task = {
  ...scenarios,
  examples: [
    ['just promises', 'Every [[promise]] of lab.toml'],
    ['tsx tasks/promises.ts sorrow --case web-answers', 'One, by its name'],
  ],
  run: async (args: Args): Promise<ExitCode | void> => {
    // read now, from the current lab.toml of the flake
    const [family] = await families(['promises'])
    return scenario(family!).run(args)
  },
}

await main(import.meta, task)

import { expect, test } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { runLanes, type Step } from '../../lib/steps.ts'

test('a bug of the lab in a case is no case that failed: it is thrown, once all others were run', async () => {
  const were: string[] = []
  const step = (title: string, thrown?: Error): Step<undefined> => ({
    title,
    would: () => [],
    run: async () => {
      were.push(title)
      if (thrown) throw thrown
    },
  })
  const lane = (title: string, ...steps: Step<undefined>[]) => ({
    title,
    context: undefined,
    steps,
  })
  const red = step('red', new Failure('red'))
  const options = { quiet: true, cases: true }
  await runLanes([lane('a', red, step('fine'))], options)
  const bug = step('bug', new TypeError('no such thing'))
  await expect(runLanes([lane('a', bug, step('next'))], options)).rejects.toThrow('no such thing')
  expect(were).toEqual(['red', 'fine', 'bug', 'next'])
})

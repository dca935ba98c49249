import { expect, test, vi } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { dryRun, runLanes, type Step } from '../../lib/steps.ts'

test('a bug in a case is thrown after the other cases have run, not counted as a failed case', async () => {
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

test('A dry run that fails midway prints nothing', async () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  try {
    const step = (would: () => string[]): Step<object> => ({
      title: 'a step',
      would,
      run: async () => {},
    })
    const lane = (...steps: Step<object>[]) => ({ title: 'lane', context: {}, steps })
    const bad = step(() => {
      throw new Failure('Cannot use it')
    })
    const good = step(() => ['make it'])
    await expect(dryRun([lane(good, bad)])).rejects.toThrow('Cannot use it')
    expect(log).not.toHaveBeenCalled()
    await dryRun([lane(good, { ...good, skip: () => 'it is there' })])
    expect(log.mock.calls.flat().join('\n')).toBe(
      'lane\n  a step\n    would make it\n  a step: nothing to do, it is there',
    )
    log.mockClear()
    await dryRun([lane(good, { ...good, skip: () => 'it is there' })], true)
    expect(JSON.parse(log.mock.calls.flat().join('\n'))).toEqual([
      { of: 'lane', step: 'a step', would: ['make it'] },
      { of: 'lane', step: 'a step', would: [], skipped: 'it is there' },
    ])
  } finally {
    log.mockRestore()
  }
})

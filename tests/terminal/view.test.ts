import { expect, test } from 'vitest'
import { openTerminal, sizes } from './terminal.ts'

const steps = 'node --import tsx tests/terminal/steps.ts'
const count = (text: string, part: string): number => text.split(part).length - 1

test.each(sizes)('each step and what it left is seen, at $columns x $rows', async (size) => {
  const terminal = await openTerminal(size)
  expect(await terminal.runs(steps)).toBe(0)
  const screen = terminal.screen()
  for (const lane of ['sorrow', 'torment']) {
    expect(screen).toMatch(new RegExp(`^${lane}$`, 'm'))
    for (const n of [1, 2, 3]) expect(count(screen, `left by step ${n} of ${lane}`)).toBe(1)
  }
  expect(count(screen, '✔')).toBe(6)
  expect(screen).not.toMatch(/at most|❯/)
  expect(screen).toMatch(/^All steps were run\nexit 1: 0\nperson\$$/m)
})

test.each(sizes)(
  'one lane of two fails: the other ends, the reason is told once and below, at $columns x $rows',
  async (size) => {
    const terminal = await openTerminal(size)
    expect(await terminal.runs(`${steps} --fail torment/2`)).toBe(1)
    const screen = terminal.screen()
    expect(screen).toContain('left by step 3 of sorrow')
    expect(screen).not.toContain('left by step 3 of torment')
    expect(count(screen, '✖')).toBe(1)
    expect(count(screen, 'Cannot do step 2 of `torment`')).toBe(1)
    expect(screen).toMatch(
      /steps: Cannot do step 2 of `torment`\n {2}hint: do step 2 of torment by hand\nexit 1: 1\nperson\$$/,
    )
  },
)

test('both lanes fail: the first failure is told first and the other after it', async () => {
  const terminal = await openTerminal(sizes[0]!)
  expect(await terminal.runs(`${steps} --fail torment/1 sorrow/2`)).toBe(1)
  expect(terminal.screen()).toMatch(
    /steps: Cannot do step 1 of `torment`\n {2}hint: .*\nalso: Cannot do step 2 of `sorrow`\n {2}hint: /,
  )
})

test('a step that is at work says which wait it is in, and counts', async () => {
  const terminal = await openTerminal(sizes[0]!)
  terminal.enter(`${steps} --hold sorrow/2`)
  await terminal.shows(/step 2 of sorrow: 2 s of at most 60 s/)
  expect(terminal.screen()).toMatch(/^ {2}❯ step 2: .*/m)
})

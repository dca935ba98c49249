import { expect, test } from 'vitest'
import { openTerminal, sizes } from './terminal.ts'

const steps = 'node --import tsx tests/terminal/steps.ts'
const count = (text: string, part: string): number => text.split(part).length - 1

test.each(sizes)('each step is shown with its outcome, at $columns x $rows', async (size) => {
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
  'if one of two lanes fails, the other finishes, and the reason is printed once at the end, at $columns x $rows',
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

test('if both lanes fail, the first failure is printed first', async () => {
  const terminal = await openTerminal(sizes[0]!)
  expect(await terminal.runs(`${steps} --fail torment/1 sorrow/2`)).toBe(1)
  expect(terminal.screen()).toMatch(
    /steps: Cannot do step 1 of `torment`\n {2}hint: .*\nalso: Cannot do step 2 of `sorrow`\n {2}hint: /,
  )
})

test('a running step shows what it waits for and the seconds', async () => {
  const terminal = await openTerminal(sizes[0]!)
  terminal.enter(`${steps} --hold sorrow/2`)
  await terminal.shows(/step 2 of sorrow: 2 s of at most 60 s/)
  expect(terminal.screen()).toMatch(/^ {2}❯ step 2: .*/m)
})

const whole = /^\d+ of 87, 1 failed, \d+ (s|min), about \d+ (s|min) left$/m
const cases = `${steps} --cases --lanes sorrow torment 'sorrow and torment' --steps 29 --fail sorrow/3`

test.each([...sizes, { columns: 80, rows: 10 }])(
  'with 87 cases the screen shows the running ones, the failed ones and a total, at $columns x $rows',
  async (size) => {
    const terminal = await openTerminal(size)
    terminal.enter(`clear; ${cases} --hold sorrow/20 torment/20`)
    await terminal.shows(/step 20 of torment: [2-9] s of at most 60 s/)
    const screen = terminal.screen()
    expect(screen).toMatch(/^sorrow: 19 of 29, 1 failed$/m)
    expect(screen).toMatch(/^torment: 19 of 29$/m)
    expect(screen).toMatch(
      /^ {2}❯ step 20: .* [2-9] s of about 20 s\n.*step 20 of sorrow: [2-9] s of/m,
    )
    expect(screen).toMatch(/^sorrow and torment: 0 of 29, after the others$/m)
    expect(screen).toMatch(/^ {2}✖ (step 3: .*\n {4})?Cannot do step 3 of `sorrow`$/m)
    expect(screen).toMatch(whole)
    // passed and pending steps are folded away, and nothing was scrolled off
    expect(screen).not.toMatch(/step (19|21|1):/)
    expect(terminal.all()).toBe(screen)
    terminal.type('\u0003')
    await terminal.prompted(5)
    expect(count(terminal.all(), 'sorrow: 19 of 29')).toBe(1)
  },
)

test('cases for two VMs start after those for one, and the final screen lists only the failure', async () => {
  const terminal = await openTerminal(sizes[0]!)
  expect(await terminal.runs(`clear; ${cases} --take 0.01`)).toBe(0)
  const screen = terminal.screen()
  expect(screen).toMatch(/^sorrow and torment: 29 of 29$/m)
  expect(screen).toMatch(/^87 of 87, 1 failed, \d+ s$/m)
  expect(count(screen, '✖')).toBe(1)
  expect(count(screen, '✔')).toBe(0)
})

test('after a window was resized it shows the view only once', async () => {
  const terminal = await openTerminal({ columns: 150, rows: 50 })
  terminal.enter(`clear; ${cases} --hold sorrow/20 torment/20`)
  await terminal.shows(/step 20 of torment: 1 s of/)
  for (const size of [
    { columns: 60, rows: 24 },
    { columns: 60, rows: 10 },
    { columns: 150, rows: 50 },
    { columns: 50, rows: 30 },
  ]) {
    terminal.resize(size)
    const then = Number(/step 20 of torment: (\d+) s/.exec(terminal.screen())?.[1] ?? 0)
    await terminal.shows(new RegExp(`step 20 of torment: ${then + 2} s`), 10)
    const screen = terminal.screen()
    // lines that a lower window pushed out at its top come back above the frame when there is room again
    expect(count(screen, 'sorrow: 19 of 29')).toBeLessThanOrEqual(2)
    expect(count(screen, 'torment: 19 of 29')).toBe(1)
    expect(count(screen, ' of 87')).toBe(1)
    expect(screen.split('\n').at(-1)).toMatch(whole)
  }
})

test('the view is drawn again after a user has typed, or has stopped and resumed the task', async () => {
  const terminal = await openTerminal(sizes[0]!)
  terminal.enter(`clear; ${steps} --hold sorrow/2`)
  await terminal.shows(/step 2 of sorrow: 1 s of/)
  terminal.type('impatient')
  await terminal.shows(/step 2 of sorrow: 3 s of/)
  expect(terminal.screen()).not.toContain('impatient')
  terminal.type('\u001a')
  await terminal.shows(/Stopped/)
  terminal.enter('fg')
  await terminal.shows(/fg\n(.*\n)*sorrow\n(.*\n)*.*step 2 of sorrow: \d+ s of/)
})

test.each([
  ['TERM=dumb', { TERM: 'dumb' }, []],
  // CI's log has colours
  ['CI=true', { CI: 'true' }, ['m']],
])('with %s plain lines are printed, and none is drawn over', async (_, env, codes) => {
  const terminal = await openTerminal(sizes[1]!, env)
  expect(await terminal.runs(`${steps} --fail torment/2`)).toBe(1)
  const screen = terminal.screen()
  expect(count(screen, 'sorrow: left by step 1 of sorrow')).toBe(1)
  expect(screen).toMatch(/steps: Cannot do step 2 of `torment`\n {2}hint: /)
  expect([...new Set(terminal.escapes().map((code) => code.at(-1)))]).toEqual(codes)
})

test('with NO_COLOR the view has no colours', async () => {
  const terminal = await openTerminal(sizes[0]!, { NO_COLOR: '1' })
  expect(await terminal.runs(steps)).toBe(0)
  expect(terminal.screen()).toContain('✔ step 1')
  expect(terminal.escapes().length).toBeGreaterThan(0)
  expect(terminal.escapes().filter((code) => code.endsWith('m'))).toEqual([])
})

test('output into a pipe is plain numbered lines without escape codes', async () => {
  const terminal = await openTerminal(sizes[1]!)
  expect(
    await terminal.runs(`${cases} --take 0.01 2>&1 | cat >$HOME/out; tail -n 40 $HOME/out`),
  ).toBe(0)
  const screen = terminal.screen()
  expect(screen).toMatch(/\[87\/87\] sorrow and torment: step 29/)
  expect(terminal.escapes()).toEqual([])
})

test('with standard output in a file the view stays on the terminal, and the file has only the result', async () => {
  const terminal = await openTerminal(sizes[0]!)
  expect(await terminal.runs(`${steps} >$HOME/out`)).toBe(0)
  expect(count(terminal.screen(), '✔')).toBe(6)
  await terminal.runs('clear; cat $HOME/out')
  expect(terminal.screen()).toMatch(/^All steps were run$/m)
  expect(terminal.screen()).not.toContain('✔')
})

test.each(['<&-', '</dev/null', '</dev/null >/dev/null 2>&1', '2>&-'])(
  'with input or output closed (%s) the steps still run',
  async (redirection) => {
    const terminal = await openTerminal(sizes[0]!)
    expect(await terminal.runs(`${steps} ${redirection}`)).toBe(0)
    expect(await terminal.runs(`${steps} --fail torment/1 ${redirection}`)).toBe(1)
  },
)

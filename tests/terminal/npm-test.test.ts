import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openTerminal, sizes } from './terminal.ts'

const short = 'npm test -- --project unit tests/lib/failure.test.ts'
const long = 'npm test -- --project unit tests/lib/ssh/ssh.test.ts'

test.each(sizes)('npm test ends with its counts, at $columns x $rows', async (size) => {
  const terminal = await openTerminal(size)
  expect(await terminal.runs(short, 120)).toBe(0)
  expect(terminal.screen()).toMatch(/^\d+ passed, 0 failed, 0 skipped\nexit 1: 0$/m)
  expect(terminal.cursorVisible()).toBe(true)
})

test.each([
  ['TERM=dumb', { TERM: 'dumb' }],
  ['NO_COLOR', { NO_COLOR: '1' }],
  ['CI=true', { CI: 'true' }],
])('npm test ends with its counts, with %s', async (_, env) => {
  const terminal = await openTerminal(sizes[0]!, env)
  expect(await terminal.runs(short, 120)).toBe(0)
  expect(terminal.screen()).toMatch(/^\d+ passed, 0 failed, 0 skipped$/m)
})

test('npm test ends with its counts, into a pipe and without input', async () => {
  const terminal = await openTerminal(sizes[0]!)
  expect(await terminal.runs(`${short} <&- 2>&1 | tail -n 1`, 120)).toBe(0)
  expect(terminal.screen()).toMatch(/^\d+ passed, 0 failed, 0 skipped$/m)
})

test('Ctrl-C brings the prompt back, and leaves no process or file of the tests', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'suite-'))
  onTestFinished(() => rmSync(scratch, { recursive: true }))
  mkdirSync(join(scratch, 'tmp'))
  const terminal = await openTerminal(sizes[0]!, { TMPDIR: join(scratch, 'tmp') })
  const before = await terminal.stty()
  terminal.enter(`clear; ${long}`)
  await terminal.shows(/ssh\.test\.ts +[1-9]\d*\/\d+/, 60)
  expect(processesIn(scratch).length).toBeGreaterThan(2)
  terminal.type('\u0003')
  expect(await terminal.prompted(10)).toBeLessThan(2)
  expect(terminal.screen()).toMatch(/^tests: Cut short: every process of the tests was ended/m)
  expect(terminal.cursorVisible()).toBe(true)
  expect(await terminal.stty()).toBe(before)
  expect(readdirSync(join(scratch, 'tmp')).filter((name) => name.startsWith('lab-tests-'))).toEqual(
    [],
  )
  // the shell of the terminal itself
  expect(processesIn(scratch)).toHaveLength(1)
})

/** Processes whose temporary files go below a directory. */
const processesIn = (dir: string): string[] =>
  readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      try {
        const environment = readFileSync(`/proc/${pid}/environ`, 'utf8')
        return environment.split('\0').some((one) => one.startsWith(`TMPDIR=${dir}`))
      } catch {
        return false
      }
    })

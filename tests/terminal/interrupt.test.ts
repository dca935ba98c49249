import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openTerminal, sizes, type Terminal } from './terminal.ts'

const ctrlC = '\u0003'
const steps = 'node --import tsx tests/terminal/steps.ts'

/** Presses Ctrl-C: the prompt must be back within 2 s, and the terminal as it was. */
async function cutShort(terminal: Terminal): Promise<void> {
  terminal.type(ctrlC)
  expect(await terminal.prompted(10)).toBeLessThan(2)
  const screen = terminal.screen()
  expect(screen.match(/Cut short/g)).toHaveLength(1)
  expect(screen).toMatch(
    /Cut short: .*no VM runs; the same command again goes on from here\n+person\$$/,
  )
  expect(terminal.cursorVisible()).toBe(true)
  expect(await terminal.runs('true')).toBe(0)
}

test.each(sizes)(
  'Ctrl-C while steps run restores the terminal, at $columns x $rows',
  async (size) => {
    const terminal = await openTerminal(size)
    const before = await terminal.stty()
    terminal.enter(`clear; ${steps} --hold sorrow/2 torment/3`)
    await terminal.shows(/step 3 of torment: 1 s of/)
    await cutShort(terminal)
    expect(await terminal.stty()).toBe(before)
  },
)

test('the exit code of Ctrl-C is 130', async () => {
  const terminal = await openTerminal(sizes[0]!)
  terminal.enter(`${steps} --hold sorrow/2; echo "ended with $?"`)
  await terminal.shows(/step 2 of sorrow: 1 s of/)
  terminal.type(ctrlC)
  await terminal.shows(/^ended with 130$/m)
})

test('the prompt comes after the last output of a slow task', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'slow-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  writeFileSync(join(dir, 'justfile'), 'slow:\n    @exec node slow.mjs\n')
  // a task may take this long on a busy machine
  writeFileSync(
    join(dir, 'slow.mjs'),
    `process.on('SIGINT', () => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)
      console.log('ended')
      process.exit(130)
    })
    setInterval(() => {}, 1000)
    console.log('at work')`,
  )
  const terminal = await openTerminal(sizes[0]!)
  terminal.enter(`clear; npx just --justfile ${dir}/justfile slow`)
  await terminal.shows(/^at work$/m)
  terminal.type(ctrlC)
  await terminal.shows(/ended\n(.*\n)*person\$$/)
  await terminal.prompted(10)
})

/** A mirror that accepts every connection and never answers. */
async function silentMirror(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/debian`
}

test('Ctrl-C while the base image is built leaves no process running', async () => {
  const cache = mkdtempSync(join(tmpdir(), 'image-'))
  onTestFinished(() => rmSync(cache, { recursive: true }))
  const terminal = await openTerminal(sizes[0]!, {
    LAB_CACHE: cache,
    LAB_DEBIAN_MIRROR: await silentMirror(),
  })
  terminal.enter('clear; npx just lab')
  await terminal.shows(/base image.*\n.*Debian packages: \d+ s of at most \d+ s/)
  // the line is printed before the command starts
  await expect.poll(() => processesWith(cache), { timeout: 10_000 }).not.toEqual([])
  await cutShort(terminal)
  expect(processesWith(cache)).toEqual([])
})

/** Processes that have a text in their command line. */
const processesWith = (text: string): string[] =>
  readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .flatMap((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text) ? [pid] : []
      } catch {
        return []
      }
    })

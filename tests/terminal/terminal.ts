/**
 * A user's terminal: a shell in a pseudo terminal, and an emulator that turns its output into a screen. A test
 * reads what a user would see.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn } from '@lydell/node-pty'
import xterm from '@xterm/headless'
import { onTestFailed, onTestFinished } from 'vitest'
import { pause } from '../../lib/retry.ts'
import { project } from '../../lib/settings.ts'

export interface Size {
  columns: number
  rows: number
}

/** The sizes that everything is tested at. */
export const sizes: Size[] = [
  { columns: 80, rows: 24 },
  { columns: 150, rows: 50 },
]

/** What the shell prints when it waits for a command; no task prints this. */
const prompt = 'person$ '

export interface Terminal {
  /** What is on the screen, without blanks at the ends of lines and below the last one. */
  screen: () => string
  /** The same with all lines that were scrolled away. */
  all: () => string
  /** Types text unchanged: `\r` is Enter, `\x03` Ctrl-C. */
  type: (keys: string) => void
  /** Types a command and Enter. */
  enter: (command: string) => void
  resize: (size: Size) => void
  /** Waits until the screen shows a text. @param seconds limit; the error it throws then holds the screen */
  shows: (wanted: RegExp | string, seconds?: number) => Promise<void>
  /** Waits until the shell asks for the next command. @returns seconds that it took */
  prompted: (seconds?: number) => Promise<number>
  /** Types a command, waits for the prompt. @returns its exit code */
  runs: (command: string, seconds?: number) => Promise<number>
  /** Whether the cursor is visible, by the last escape code that sets it. */
  cursorVisible: () => boolean
  /** The escape codes that commands have sent, without those of the shell's own prompt. */
  escapes: () => string[]
  /** What `stty -a` says of the terminal now, asked at the prompt. */
  stty: () => Promise<string>
}

/**
 * Opens a terminal with a shell at its prompt, in the project's directory. It is closed when the test
 * ends, and a test that fails prints its screen.
 * @param env added to the environment of the tests, without what CI sets there
 */
export async function openTerminal(
  { columns, rows }: Size,
  env: Record<string, string> = {},
): Promise<Terminal> {
  const home = mkdtempSync(join(tmpdir(), 'terminal-'))
  const rest = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => !/^(CI|NO_COLOR|FORCE_COLOR|VITEST.*)$/.test(name),
    ),
  ) as Record<string, string>
  const shell = spawn('bash', ['--norc', '--noprofile', '-i'], {
    name: env['TERM'] ?? 'xterm-256color',
    cols: columns,
    rows,
    cwd: project,
    env: {
      ...rest,
      HOME: home,
      LANG: 'C.UTF-8',
      // the sockets are removed with it
      XDG_RUNTIME_DIR: home,
      LAB_HOME: join(home, 'lab'),
      LAB_ENV_FILE: '',
      ...env,
      PS1: prompt,
      HISTFILE: '',
    },
  })
  const emulator = new xterm.Terminal({
    cols: columns,
    rows,
    scrollback: 5000,
    allowProposedApi: true,
  })
  let cursor = true
  const cursorIs = (shown: boolean) => (params: (number | number[])[]) => {
    if (params.includes(25)) cursor = shown
    return false
  }
  emulator.parser.registerCsiHandler({ prefix: '?', final: 'h' }, cursorIs(true))
  emulator.parser.registerCsiHandler({ prefix: '?', final: 'l' }, cursorIs(false))
  let changed = (): void => {}
  let sent = ''
  shell.onData((data) => {
    sent += data
    emulator.write(data, () => changed())
  })
  // answers of the terminal, such as where its cursor is
  emulator.onData((data) => shell.write(data))

  const lines = (from: number): string[] => {
    const { active } = emulator.buffer
    const found: string[] = []
    for (let at = from; at < active.length; at++) {
      found.push((active.getLine(at)?.translateToString(true) ?? '').trimEnd())
    }
    return found
  }
  const text = (from: number): string => lines(from).join('\n').trimEnd()
  const screen = (): string => text(emulator.buffer.active.baseY)
  const all = (): string => text(0)

  async function until(what: string, seconds: number, holds: () => boolean): Promise<number> {
    const from = performance.now()
    for (;;) {
      if (holds()) return (performance.now() - from) / 1000
      const left = seconds * 1000 - (performance.now() - from)
      if (left <= 0) throw new Error(`No ${what} within ${seconds} s:\n${framed(screen())}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(left, 200))
        changed = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }
  /** Whether the cursor's line holds only the prompt, with the cursor behind it. */
  const atPrompt = (): boolean => {
    const { active } = emulator.buffer
    const line = active.getLine(active.baseY + active.cursorY)?.translateToString(true) ?? ''
    return line.trimEnd() === prompt.trimEnd() && active.cursorX === prompt.length
  }

  let runCount = 0
  const enter = (command: string): void => shell.write(`${command}\r`)
  const prompted: Terminal['prompted'] = (seconds = 30) => until('prompt', seconds, atPrompt)
  const runs: Terminal['runs'] = async (command, seconds = 60) => {
    const ended = new RegExp(`^exit ${(runCount += 1)}: (\\d+)$`, 'm')
    enter(`${command}; echo "exit ${runCount}: $?"`)
    await until('exit code', seconds, () => ended.test(all()))
    await prompted()
    return Number(ended.exec(all())![1])
  }

  onTestFailed(() => console.error(framed(all().split('\n').slice(-rows).join('\n'))))
  onTestFinished(async () => {
    // as when the window is closed
    shell.kill('SIGHUP')
    const gone = (): boolean => !existsSync(`/proc/${shell.pid}`)
    for (let tries = 0; tries < 40 && !gone(); tries++) await pause(0.05)
    if (!gone()) shell.kill('SIGKILL')
    // npx may still write its log there
    rmSync(home, { recursive: true, force: true, maxRetries: 5 })
  })
  await prompted()
  return {
    screen,
    all,
    type: (keys) => shell.write(keys),
    enter,
    resize: (size) => {
      emulator.resize(size.columns, size.rows)
      shell.resize(size.columns, size.rows)
    },
    shows: async (wanted, seconds = 30) => {
      await until(`\`${wanted}\` on the screen`, seconds, () =>
        typeof wanted === 'string' ? screen().includes(wanted) : wanted.test(screen()),
      )
    },
    prompted,
    runs,
    cursorVisible: () => cursor,
    escapes: () => (sent.match(escape) ?? []).filter((code) => !/\?2004[hl]$/.test(code)),
    stty: async () => {
      await runs(`stty -a >${join(home, 'stty')}`)
      return readFileSync(join(home, 'stty'), 'utf8')
    },
  }
}

// oxlint-disable-next-line no-control-regex -- exactly these are looked for
const escape = /\u001b\[[0-9;?]*[A-Za-z]/g

const framed = (text: string): string => `${'-'.repeat(60)}\n${text}\n${'-'.repeat(60)}`

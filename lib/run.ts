import type { ChildProcess } from 'node:child_process'
import type { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { Failure } from './failure.ts'
import { findCommand, searchPath } from './find-command.ts'

export interface RunOptions {
  cwd?: string
  env?: Record<string, string>
  /** Text for standard input; without it the command reads nothing. */
  input?: string
  /** Limit in seconds; the command and its children are killed when it passes. Default 120. */
  timeout?: number
  /** Exit codes that are not a failure, besides 0. */
  allow?: number[]
  /** Called with each line of standard error or output as it comes. */
  onLine?: (line: string) => void
  hint?: string
  signal?: AbortSignal
}

export interface Ran {
  stdout: string
  stderr: string
  code: number
}

/**
 * Runs one command and waits for it. The command dies with the lab (`setpriv --pdeathsig`), so that
 * even a kill -9 leaves nothing behind.
 * @throws Failure naming the command, its exit code and its last lines
 */
export async function run(command: string, args: string[], options: RunOptions = {}): Promise<Ran> {
  const { $ } = await import('zx/core')
  const seconds = options.timeout ?? 120
  const started = $({
    cwd: options.cwd,
    // without an outer shell, as under a timer or in CI, bash would take our pipe for a remote login and run the
    // user's .bashrc
    env: { ...process.env, PATH: searchPath(), SHLVL: '1', ...options.env },
    input: options.input,
    quiet: true,
    nothrow: true,
    timeout: `${Math.ceil(seconds * 1000)}ms`,
    timeoutSignal: 'SIGKILL',
    signal: options.signal,
    // the shell becomes the command, so that signals reach the command and not a waiting shell
    prefix: 'exec setpriv --pdeathsig KILL ',
  })`${[command, ...args]}`
  // a command may end without reading its input; its exit code says what that means
  started.stdin.on('error', () => {})
  // without input, zx leaves standard input open
  if (!options.input) started.stdin.end()
  if (options.onLine) {
    // attach at once: a line that comes earlier is lost
    for (const input of [started.stdout, started.stderr]) {
      createInterface({ input }).on('line', options.onLine)
    }
  }
  const from = performance.now()
  let took: number | undefined
  const { child } = started
  child!.once('exit', () => {
    took = (performance.now() - from) / 1000
    leaveBehind(child!)
  })
  const done = await started
  took ??= (performance.now() - from) / 1000
  const code = done.exitCode ?? 128
  // a shell whose child was killed at the limit may still exit with 0
  const late = took >= seconds
  if (!late && (done.exitCode === 0 || options.allow?.includes(code))) {
    return { stdout: done.stdout, stderr: done.stderr, code }
  }
  if (options.signal?.aborted) throw options.signal.reason
  // a command that is installed exits with 127, too, if one that it runs is missing
  const missing = code === 127 && findCommand(command) === undefined
  const why = late
    ? `took longer than its limit of ${seconds} s`
    : done.signal
      ? `was killed by ${done.signal}`
      : missing
        ? 'is not installed'
        : `exited with ${code}`
  throw new Failure(`Command \`${[command, ...args.slice(0, 2)].join(' ')}\` ${why}`, {
    hint: options.hint ?? (missing ? 'just doctor names the package' : undefined),
    evidence: lastLines(done.stderr || done.stdout),
  })
}

/**
 * Closes the output of a command that has ended, once nothing more comes for a second. A process that it left behind,
 * such as a helper of unshare or a connection that ssh keeps, may hold it open for ever.
 */
function leaveBehind(child: ChildProcess): void {
  const output = [child.stdout, child.stderr] as Socket[]
  const seen = (): number => output.reduce((sum, { bytesRead }) => sum + bytesRead, 0)
  let last = seen()
  let quiet = 0
  // counted in steps with a read between them, because this process may itself have been suspended
  const step = setInterval(() => {
    quiet = seen() === last ? quiet + 1 : 0
    last = seen()
    if (quiet >= 4) for (const stream of output) stream.destroy()
  }, 250)
  child.once('close', () => clearInterval(step))
}

/** The last `count` lines of a log, for a failure's evidence. */
export const lastLines = (text: string, count = 8): string =>
  text.trimEnd().split('\n').slice(-count).join('\n')

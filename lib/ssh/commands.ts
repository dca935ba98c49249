import { Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import type { NodeSSH } from 'node-ssh'
import type { ClientChannel } from 'ssh2'
import { deferred } from '../deferred.ts'
import { Failure } from '../failure.ts'
import { gate } from '../gate.ts'
import { pause, TookTooLong, type Blame } from '../retry.ts'
import { lastLines, type Ran, type RunOptions } from '../run.ts'

export interface ExecOptions extends Pick<RunOptions, 'timeout' | 'onLine' | 'signal' | 'hint'> {
  input?: string | Buffer
  /** Exit codes that are not a failure, besides 0. */
  allow?: number[] | 'any'
}

export type Exec = (command: string, options?: ExecOptions) => Promise<Ran>

/**
 * Runs commands on a connection: see `Ssh.exec`.
 * @param on name of the other side in messages
 * @param blame asked for the reason when a command times out or the connection is lost
 * @returns `exec`, and `cutOff`, which fails every running and later command; the connection's owner calls it
 */
export function commands(
  ssh: NodeSSH,
  on: string,
  blame?: Blame,
): { exec: Exec; cutOff: (why: string) => void } {
  // sshd allows 10 sessions (MaxSessions); a command that timed out or was aborted may still hold one
  const { enter, leave } = gate(8)
  const running = new Set<(why: string) => void>()
  let gone: string | undefined

  const exec: Exec = async (command, options = {}) => {
    const { input, timeout = 120, allow = [], onLine, signal, hint } = options
    const given = deferred<never>()
    const stdout = collect(onLine, given.reject)
    const stderr = collect(onLine, given.reject)
    const named = `Command \`${shown(command)}\` on ${on}`
    const cannot = (why: string, kind = Failure): Failure => {
      const evidence = lastLines(stderr.text() || stdout.text()) || undefined
      return new kind(`${named} ${why}`, { hint, evidence })
    }
    const cut = (why: string): void => given.reject(blame?.(named) ?? cannot(`was cut off: ${why}`))
    const late = (): void =>
      given.reject(
        blame?.(named) ?? cannot(`took longer than its limit of ${timeout} s`, TookTooLong),
      )
    const abort = (): void => given.reject(signal?.reason)
    let timer: NodeJS.Timeout | undefined
    let channel: ClientChannel | undefined
    let over = false

    running.add(cut)
    signal?.addEventListener('abort', abort, { once: true })
    if (signal?.aborted) abort()
    if (gone !== undefined) cut(gone)
    try {
      await enter(given.promise)
      timer = setTimeout(late, timeout * 1000)
      const start = () =>
        ssh.execCommand(command, {
          noTrim: true,
          stdin: input?.length ? Readable.from([input]) : undefined,
          onStdout: stdout.feed,
          onStderr: stderr.feed,
          onChannel: (opened) => {
            channel = opened
            if (over) kill(opened)
          },
        })
      const done = whenSessionFree(start, () => over)
      // not as soon as a command times out or is aborted: sshd counts a session until its channel is closed
      done.then(leave, leave)
      const ended = done.catch((error: Error) => {
        throw cannot(`could not be started: ${error.message}`)
      })
      const { code, signal: killer } = await Promise.race([ended, given.promise])
      stdout.end()
      stderr.end()
      if (code === null)
        throw cannot(killer ? `was killed by ${killer}` : 'ended with no exit code')
      if (code !== 0 && allow !== 'any' && !allow.includes(code))
        throw cannot(`exited with ${code}`)
      return { stdout: stdout.text(), stderr: stderr.text(), code }
    } catch (thrown) {
      if (channel) kill(channel)
      throw thrown
    } finally {
      over = true
      clearTimeout(timer)
      running.delete(cut)
      signal?.removeEventListener('abort', abort)
    }
  }
  const cutOff = (why: string): void => {
    gone ??= why
    for (const cut of running) cut(gone)
  }
  return { exec, cutOff }
}

/**
 * sshd frees a session a little after it has closed its channel. When several commands end together,
 * the next ones may be refused. A refused command has not run, so it is safe to start it again.
 */
async function whenSessionFree<T>(start: () => Promise<T>, over: () => boolean): Promise<T> {
  for (;;) {
    try {
      return await start()
    } catch (error) {
      if (over() || !(error as Error).message.includes('Channel open failure')) throw error
      await pause(0.05)
    }
  }
}

function kill(channel: ClientChannel): void {
  channel.signal('KILL')
  channel.close()
}

function shown(command: string): string {
  const [first = ''] = command.trimStart().split('\n', 1)
  return first.length > 100 ? `${first.slice(0, 100)}…` : first
}

interface Collected {
  feed: (chunk: Buffer) => void
  end: () => void
  text: () => string
}

/** Collects one stream, whose packets may split lines and even characters. */
function collect(onLine: ExecOptions['onLine'], onThrow: (thrown: unknown) => void): Collected {
  const decoder = new StringDecoder('utf8')
  const parts: string[] = []
  let rest = ''
  const take = (text: string): void => {
    parts.push(text)
    if (!onLine) return
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) onLine(line)
  }
  const feed = (chunk: Buffer): void => {
    try {
      take(decoder.write(chunk))
    } catch (thrown) {
      // inside ssh2's parser this exception would look like a broken connection
      onThrow(thrown)
    }
  }
  const end = (): void => {
    take(decoder.end())
    if (rest) onLine?.(rest)
  }
  return { feed, end, text: () => parts.join('') }
}

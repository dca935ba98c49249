import { randomInt } from 'node:crypto'
import { constants } from 'node:os'
import { deferred, type Deferred } from '../deferred.ts'
import { Failure, onFailure } from '../failure.ts'
import { pause, TookTooLong, waitFor, within, type Blame } from '../retry.ts'
import { lastLines, type Ran } from '../run.ts'
import { kernelOf } from './kernel.ts'
import { openSocket } from './socket.ts'
import { files, type Vm } from './vm.ts'

/**
 * Sets PATH for shell programs in a guest, because the agent's own PATH has almost nothing. NixOS has its commands in
 * the first directory, Debian in the others.
 */
export const programPath = 'export PATH=/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export interface GuestExecOptions {
  input?: string | Buffer
  /** Limit in seconds; the program is killed when it passes. Default 30. */
  timeout?: number
  /** Exit codes that are not a failure, besides 0. */
  allow?: number[] | 'any'
}

export interface GuestAgent {
  /**
   * Runs one command of the agent and returns its result (QEMU Guest Agent Protocol Reference).
   * @param limit seconds, default 10
   * @throws Failure when the agent refuses it or does not answer in time
   */
  execute: <T = unknown>(command: string, args?: object, limit?: number) => Promise<T>
  /**
   * Runs a program in the guest, as root and without a shell, and waits for it. The agent keeps
   * 16 MiB of each stream and drops the rest.
   * @throws Failure naming its exit code, its signal or its limit
   */
  exec: (program: string, args?: string[], options?: GuestExecOptions) => Promise<Ran>
  close: () => void
}

/**
 * Connects to a guest agent and waits until it answers; it may start after this call. QEMU accepts
 * the connection whether or not an agent runs in the guest, and serves one client at a time.
 * @param options.timeout seconds until the agent answers, default 10
 * @param options.name name of the guest in messages
 * @param options.blame asked for the reason when there is no answer
 * @throws Failure when QEMU does not run or the agent does not answer
 */
export async function guestAgent(
  path: string,
  options: { timeout?: number; name?: string; blame?: Blame } = {},
): Promise<GuestAgent> {
  const agent = `guest agent${options.name ? ` of \`${options.name}\`` : ''}`
  const socket = await openSocket(path, 'guest agent')
  const pending = new Map<number, Deferred<unknown> & { command: string }>()
  // answers to an earlier client may arrive first, so our ids must differ from its ids
  let lastId = randomInt(2 ** 40)

  const take = (line: string): void => {
    const message = parse(line)
    const asked = pending.get(message?.id ?? -1)
    if (!message || !asked) return
    const { error } = message
    if (!error) asked.resolve(message.return)
    else asked.reject(new Failure(`The ${agent} refused \`${asked.command}\`: ${error.desc}`))
  }
  let rest: Buffer[] = []
  socket.on('data', (chunk: Buffer) => {
    // the agent's sentinel byte: everything before it is left from an earlier client
    const sentinel = chunk.lastIndexOf(0xff)
    if (sentinel >= 0) rest = []
    let left = chunk.subarray(sentinel + 1)
    for (let end: number; (end = left.indexOf('\n')) >= 0; left = left.subarray(end + 1)) {
      take(Buffer.concat([...rest, left.subarray(0, end)]).toString())
      rest = []
    }
    rest.push(left)
  })
  socket.once('close', () => {
    for (const { command, reject } of pending.values()) {
      reject(new Failure(`The ${agent} is gone, before it answered \`${command}\``))
    }
  })

  const execute: GuestAgent['execute'] = async <T>(command: string, args?: object, limit = 10) => {
    if (socket.destroyed) throw new Failure(`The ${agent} is gone, so it cannot \`${command}\``)
    const answer = deferred<unknown>()
    const id = (lastId += 1)
    const late = (): Failure =>
      options.blame?.(`The ${agent} did not answer \`${command}\``) ??
      new TookTooLong(`The ${agent} did not answer \`${command}\` within ${limit} s`)
    pending.set(id, { ...answer, command })
    // the byte makes the agent drop a partial command of an earlier client
    if (command === 'guest-sync-delimited') socket.write(Buffer.of(0xff))
    socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    return within(answer.promise as Promise<T>, limit, late).finally(() => pending.delete(id))
  }

  const exec: GuestAgent['exec'] = async (program, args = [], execOptions = {}) => {
    const { input, timeout = 30, allow = [] } = execOptions
    const from = performance.now()
    const { pid } = await execute<{ pid: number }>('guest-exec', {
      path: program,
      arg: args,
      'input-data': input === undefined ? undefined : Buffer.from(input).toString('base64'),
      'capture-output': true,
    })
    let status = await execute<Status>('guest-exec-status', { pid })
    for (let every = 0.02; !status.exited; every = Math.min(0.5, every * 1.5)) {
      if (performance.now() - from > timeout * 1000) {
        await execute('guest-exec', { path: 'kill', arg: ['-KILL', String(pid)] }).catch(() => {})
        throw new TookTooLong(
          `\`${program}\` took longer than its limit of ${timeout} s (${agent})`,
        )
      }
      await pause(every)
      status = await execute<Status>('guest-exec-status', { pid })
    }
    const stdout = text(status['out-data'])
    const stderr = text(status['err-data'])
    const { exitcode: code, signal } = status
    const allowed = code === 0 || (code !== undefined && (allow === 'any' || allow.includes(code)))
    if (allowed) return { stdout, stderr, code }
    const how = code === undefined ? `was killed by ${signalName(signal)}` : `exited with ${code}`
    const evidence = lastLines(stderr || stdout) || undefined
    throw new Failure(`\`${program}\` ${how} (${agent})`, { evidence })
  }

  const sync = async (): Promise<true> => {
    await execute('guest-sync-delimited', { id: lastId }, 2)
    return true
  }
  const final = (): boolean => socket.destroyed
  try {
    await waitFor(`the ${agent}`, options.timeout ?? 10, sync, { final, blame: options.blame })
  } catch (thrown) {
    socket.destroy()
    throw thrown
  }
  return { execute, exec, close: () => socket.destroy() }
}

/**
 * Runs `work` with a connection to the guest agent of a VM.
 * @param timeout seconds until the agent answers
 */
export async function withGuest<T>(
  { host }: Pick<Vm, 'host'>,
  work: (guest: GuestAgent) => Promise<T>,
  timeout = 30,
): Promise<T> {
  const guest = await guestAgent(files(host).agent, { name: host, timeout, blame: kernelOf(host) })
  try {
    return await work(guest)
  } finally {
    guest.close()
  }
}

/**
 * Resolves when an agent answers.
 * @param limit seconds, default 5
 * @throws Failure saying why it does not
 */
async function askAgent(path: string, limit = 5): Promise<void> {
  const agent = await guestAgent(path, { timeout: limit })
  agent.close()
}

/** Whether an agent answers within `limit` seconds. */
export const reachable = (path: string, limit: number): Promise<boolean> =>
  askAgent(path, limit).then(
    () => true,
    onFailure(() => false),
  )

interface Status {
  exited: boolean
  exitcode?: number
  signal?: number
  'out-data'?: string
  'err-data'?: string
}

interface Message {
  id?: number
  return?: unknown
  error?: { class: string; desc: string }
}

/** Parses a line; undefined for a partial line of an earlier answer. */
function parse(line: string): Message | undefined {
  try {
    return JSON.parse(line) as Message
  } catch {
    return undefined
  }
}

const text = (base64 = ''): string => Buffer.from(base64, 'base64').toString()

const signalName = (number: number | undefined): string =>
  Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? `signal ${number}`

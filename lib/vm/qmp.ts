import { randomBytes } from 'node:crypto'
import { deferred, type Deferred } from '../deferred.ts'
import { Failure } from '../failure.ts'
import { waitFor, within } from '../retry.ts'
import { openSocket } from './socket.ts'

export interface QmpEvent {
  event: string
  data?: Record<string, unknown>
  timestamp?: { seconds: number; microseconds: number }
}

export interface Qmp {
  /**
   * Runs one command and returns its result (QEMU QMP Reference Manual).
   * @param limit seconds, default 30
   * @throws Failure when QEMU refuses, when it ends or the limit passes
   */
  execute: <T = unknown>(command: string, args?: object, limit?: number) => Promise<T>
  /** Calls the listener with each event from now on; returns a function that stops it. */
  on: (listener: (event: QmpEvent) => void) => () => void
  /** Resolves when the connection is gone. */
  closed: Promise<void>
  close: () => void
}

/**
 * Connects to a QMP monitor. It serves one client at a time; others wait for their turn.
 * @param options.timeout seconds until the monitor greets, default 10
 * @param options.told called with every event from the first one on
 * @throws Failure when QEMU does not run or another client does not disconnect
 */
export async function qmp(
  path: string,
  { timeout: limit = 10, told }: { timeout?: number; told?: (event: QmpEvent) => void } = {},
): Promise<Qmp> {
  const socket = await openSocket(path, 'QMP monitor')
  const greeted = deferred<void>()
  const pending = new Map<number, Deferred<unknown> & { command: string }>()
  const listeners = new Set(told ? [told] : [])
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  let lastId = 0

  const take = (line: string): void => {
    const message = JSON.parse(line) as Message
    if (message.QMP) greeted.resolve()
    if (message.event !== undefined) {
      for (const listener of listeners) listener(message as QmpEvent)
    }
    const asked = pending.get(message.id ?? 0)
    if (!message.error) asked?.resolve(message.return)
    else {
      const { desc } = message.error
      asked?.reject(new Failure(`QEMU refused \`${asked.command}\`: ${desc}`))
    }
  }
  let rest = ''
  socket.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    try {
      for (const line of lines) take(line)
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error
      greeted.reject(new Failure(`Cannot use \`${path}\` as a QMP monitor: it speaks no JSON`))
      socket.destroy()
    }
  })
  socket.once('close', () => {
    for (const { command, resolve, reject } of pending.values()) {
      // QEMU may end before it answers `quit`
      if (command === 'quit') resolve(undefined)
      else reject(new Failure(`QEMU ended before it answered \`${command}\``))
    }
    greeted.reject(new Failure(`QEMU ended before its monitor at \`${path}\` greeted`))
  })

  const execute: Qmp['execute'] = async <T>(command: string, args?: object, seconds = 30) => {
    if (socket.destroyed) throw new Failure(`Cannot ask QEMU for \`${command}\`: it has ended`)
    const answer = deferred<unknown>()
    const id = (lastId += 1)
    const late = () => new Failure(`QEMU did not answer \`${command}\` within ${seconds} s`)
    pending.set(id, { ...answer, command })
    socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    return within(answer.promise as Promise<T>, seconds, late).finally(() => pending.delete(id))
  }
  const on: Qmp['on'] = (listener) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }

  const busy = () =>
    new Failure(`The QMP monitor at \`${path}\` did not greet within ${limit} s`, {
      hint: 'It serves one client at a time: another task may hold it',
    })
  try {
    await within(greeted.promise, limit, busy)
    await execute('qmp_capabilities', undefined, limit)
  } catch (thrown) {
    socket.destroy()
    throw thrown
  }
  return { execute, on, closed, close: () => socket.destroy() }
}

interface Message {
  QMP?: object
  id?: number
  return?: unknown
  error?: { class: string; desc: string }
  event?: string
}

/**
 * Runs a command that starts a job (`snapshot-save`, `snapshot-load`, `snapshot-delete`) and waits
 * until the job ends.
 * @param args the command's arguments without `job-id`
 * @param limit seconds
 * @throws Failure with QEMU's error when the job fails
 */
export async function runJob(
  client: Qmp,
  command: string,
  args: object,
  limit: number,
): Promise<void> {
  const id = `lab-${randomBytes(6).toString('hex')}`
  await client.execute(command, { 'job-id': id, ...args }, limit)
  const job = await waitFor(
    `QEMU's job \`${command}\``,
    limit,
    async () => {
      const jobs = await client.execute<Job[]>('query-jobs', undefined, limit)
      return jobs.find((one) => one.id === id && one.status === 'concluded')
    },
    // the event normally ends the wait; the query is for an event that was missed
    { every: 1, final: () => true, wake: (poke) => client.on(onJob(id, poke)) },
  )
  await client.execute('job-dismiss', { id })
  if (job.error) throw new Failure(`QEMU could not finish \`${command}\`: ${job.error}`)
}

interface Job {
  id: string
  status: string
  error?: string
}

const onJob =
  (id: string, poke: () => void) =>
  ({ event, data }: QmpEvent): void => {
    if (event === 'JOB_STATUS_CHANGE' && data?.['id'] === id) poke()
  }

import { randomBytes } from 'node:crypto'
import { deferred, type Deferred } from '../deferred.ts'
import { Failure } from '../failure.ts'
import { queue } from '../queue.ts'
import { waitFor } from '../retry.ts'
import { openSocket } from './socket.ts'

export interface QmpEvent {
  event: string
  data?: Record<string, unknown>
  timestamp?: { seconds: number; microseconds: number }
}

export interface Qmp {
  /**
   * Runs one command and gives what it returns (QEMU QMP Reference Manual).
   * @param limit seconds, default 30
   * @throws QmpRefused when QEMU says no, Failure when QEMU ends or the limit passes
   */
  execute: <T = unknown>(command: string, args?: object, limit?: number) => Promise<T>
  /** Calls back with each event from now on; returns how to stop. */
  on: (listener: (event: QmpEvent) => void) => () => void
  /** Every event since the connection was made, for one reader; ends with the connection. */
  events: AsyncIterable<QmpEvent>
  /**
   * Waits for an event that comes after this call, so call it before what brings the event about.
   * @throws Failure naming the event when `limit` seconds pass or the connection ends
   */
  waitEvent: (name: string, limit: number, where?: (data: object) => boolean) => Promise<QmpEvent>
  /** Resolves when the connection is gone. */
  closed: Promise<void>
  close: () => void
}

/** QEMU understood and refused. */
export class QmpRefused extends Failure {
  /** QEMU's class of the error: `GenericError`, `DeviceNotFound`, `CommandNotFound`. */
  readonly class: string

  constructor(command: string, error: { class: string; desc: string }) {
    super(`QEMU refused \`${command}\`: ${error.desc}`)
    this.class = error.class
  }
}

/**
 * Connects to a QMP monitor. It serves one client; the next one waits for its turn.
 * @param options.timeout seconds until the monitor greets, default 10
 * @throws Failure when QEMU does not run or another client does not leave
 */
export async function qmp(path: string, options: { timeout?: number } = {}): Promise<Qmp> {
  const limit = options.timeout ?? 10
  const socket = await openSocket(path, 'QMP monitor')
  const greeted = deferred<void>()
  const pending = new Map<number, Deferred<unknown> & { command: string }>()
  const listeners = new Set<(event: QmpEvent) => void>()
  const onClose = new Set<() => void>()
  const events = queue<QmpEvent>()
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  let lastId = 0

  const take = (line: string): void => {
    const message = JSON.parse(line) as Message
    if (message.QMP) greeted.resolve()
    if (message.event !== undefined) {
      events.push(message as QmpEvent)
      for (const listener of listeners) listener(message as QmpEvent)
    }
    const asked = pending.get(message.id ?? 0)
    if (message.error) asked?.reject(new QmpRefused(asked.command, message.error))
    else asked?.resolve(message.return)
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
      // that it answers before it ends is not certain
      if (command === 'quit') resolve(undefined)
      else reject(new Failure(`QEMU ended before it answered \`${command}\``))
    }
    greeted.reject(new Failure(`QEMU ended before its monitor at \`${path}\` greeted`))
    for (const tell of onClose) tell()
    events.end()
  })

  const execute: Qmp['execute'] = async <T>(command: string, args?: object, seconds = 30) => {
    if (socket.destroyed) throw new Failure(`Cannot ask QEMU for \`${command}\`: it has ended`)
    const answer = deferred<unknown>()
    const id = (lastId += 1)
    const late = new Failure(`QEMU did not answer \`${command}\` within ${seconds} s`)
    const timer = setTimeout(() => answer.reject(late), seconds * 1000)
    pending.set(id, { ...answer, command })
    socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    try {
      return (await answer.promise) as T
    } finally {
      clearTimeout(timer)
      pending.delete(id)
    }
  }
  const on: Qmp['on'] = (listener) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  const waitEvent: Qmp['waitEvent'] = (name, seconds, where = () => true) => {
    const found = deferred<QmpEvent>()
    const off = on((event) => {
      if (event.event === name && where(event.data ?? {})) found.resolve(event)
    })
    const ended = (): void => found.reject(new Failure(`QEMU ended before its event ${name} came`))
    const late = new Failure(`QEMU's event ${name} did not come within ${seconds} s`)
    const timer = setTimeout(() => found.reject(late), seconds * 1000).unref()
    onClose.add(ended)
    if (socket.destroyed) ended()
    const forget = (): void => {
      clearTimeout(timer)
      onClose.delete(ended)
      off()
    }
    found.promise.then(forget, forget)
    return found.promise
  }

  const busy = new Failure(`The QMP monitor at \`${path}\` did not greet within ${limit} s`, {
    hint: 'It serves one client at a time: another task may hold it',
  })
  const timer = setTimeout(() => greeted.reject(busy), limit * 1000)
  try {
    await greeted.promise
    await execute('qmp_capabilities', undefined, limit)
  } catch (thrown) {
    socket.destroy()
    throw thrown
  } finally {
    clearTimeout(timer)
  }
  return { execute, on, events: events.items, waitEvent, closed, close: () => socket.destroy() }
}

interface Message {
  QMP?: object
  id?: number
  return?: unknown
  error?: { class: string; desc: string }
  event?: string
}

/**
 * Runs a command that makes a job (`snapshot-save`, `snapshot-load`, `snapshot-delete`) and waits
 * for its end.
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
    // the event tells; the query only makes sure that none was missed
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

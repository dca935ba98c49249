import { Failure } from './failure.ts'

/** Subscribes to an event that ends a pause early; returns a function that unsubscribes. */
export type Wake = (poke: () => void) => () => void

/** Something took longer than its limit. */
export class TookTooLong extends Failure {}

/**
 * Finds the real cause of a failure elsewhere: for example, that the guest's kernel is dead.
 * @param during what was being done; the message begins with it
 */
export type Blame = (during: string) => Failure | undefined

export interface WaitOptions {
  /** Seconds from the start of one probe to the start of the next. Default 0.5. */
  every?: number
  /** Fetched once, when the wait has failed: the last lines of a log, a unit's status. */
  evidence?: () => string | Promise<string>
  hint?: string
  /** Called once, when the wait has failed: a failure that it returns is thrown instead. */
  blame?: Blame
  /** Ends the wait at once; its reason is what the wait throws. */
  signal?: AbortSignal
  /** Triggers the next probe at once, ahead of its time. */
  wake?: Wake
  /** True if trying again is useless: the failure is then thrown unchanged. */
  final?: (failure: Failure) => boolean
  /** Called each second with the time waited and the limit, and with an empty line at the end. */
  say?: (line: string) => void
  /** What that line calls the wait, if not its name. */
  as?: string
}

/**
 * Probes until the probe returns something other than `undefined` or `false`. A `Failure` thrown
 * by the probe means "not yet" and is kept as the reason; anything else is a bug and ends the wait.
 * @param name what is waited for, as it stands in the message: "`sorrow` to answer on SSH"
 * @param limit seconds; it also ends a probe that hangs (the probe's signal says so)
 * @throws TookTooLong naming the wait, its limit, the last reason and the evidence; or what `blame` found
 */
export async function waitFor<T>(
  name: string,
  limit: number,
  probe: (signal: AbortSignal) => Promise<T | undefined | false> | T | undefined | false,
  options: WaitOptions = {},
): Promise<T> {
  const { every = 0.5, signal } = options
  const from = performance.now()
  const elapsed = (): number => (performance.now() - from) / 1000
  const over = new AbortController()
  const stop = (): void => over.abort()
  const ended = new Promise<undefined>((resolve) =>
    over.signal.addEventListener('abort', () => resolve(undefined), { once: true }),
  )
  const timer = setTimeout(stop, limit * 1000)
  signal?.addEventListener('abort', stop, { once: true })
  if (signal?.aborted) stop()

  // a poke during a probe counts: the event may have come after the probe looked
  let poked = false
  let wakeUp: (() => void) | undefined
  const unsubscribe = options.wake?.(() => {
    poked = true
    wakeUp?.()
  })
  let last: Failure | undefined
  const tell = (): void => options.say?.(counted(options.as ?? name, elapsed(), limit))
  const telling = options.say && setInterval(tell, 1000)
  tell()
  try {
    for (let due = 0; !over.signal.aborted;) {
      try {
        const found = await Promise.race([probe(over.signal), ended])
        if (found !== undefined && found !== false) return found
      } catch (thrown) {
        if (!(thrown instanceof Failure) || options.final?.(thrown)) throw thrown
        if (!over.signal.aborted) last = thrown
      }
      if (over.signal.aborted) break
      due = Math.max(due + every, elapsed())
      if (!poked) await Promise.race([ended, pause(due - elapsed(), (end) => (wakeUp = end))])
      if (poked) due = elapsed()
      poked = false
    }
  } finally {
    clearTimeout(timer)
    clearInterval(telling)
    options.say?.('')
    wakeUp?.()
    unsubscribe?.()
    signal?.removeEventListener('abort', stop)
    stop()
  }
  if (signal?.aborted) throw signal.reason
  const reason = last ? `: ${last.message}` : ''
  const blamed = options.blame?.(`Waiting for ${name}`)
  if (blamed) throw blamed
  throw new TookTooLong(`Waiting for ${name} took longer than its limit of ${limit} s${reason}`, {
    hint: options.hint ?? last?.detail.hint,
    evidence: (await options.evidence?.()) ?? last?.detail.evidence,
    cause: last,
  })
}

/** The progress line of a wait: its name, how long it has lasted, and its limit, in seconds. */
const counted = (name: string, elapsed: number, limit: number): string =>
  `${name}: ${elapsed.toFixed(0)} s of at most ${limit} s`

/**
 * Runs work that enforces its own limit, and reports each second how much of it has passed; reports an empty
 * line at the end.
 * @param name what it waits for; a function if this changes on the way
 * @param limit seconds; `work` itself has to keep to it
 */
export async function counting<T>(
  name: string | (() => string),
  limit: number,
  say: (line: string) => void,
  work: () => Promise<T>,
): Promise<T> {
  const from = performance.now()
  const tell = (): void => {
    const called = typeof name === 'string' ? name : name()
    say(counted(called, (performance.now() - from) / 1000, limit))
  }
  tell()
  const timer = setInterval(tell, 1000)
  try {
    return await work()
  } finally {
    clearInterval(timer)
    say('')
  }
}

/**
 * Waits for work until its limit has passed; the work itself goes on.
 * @param limit seconds
 * @param late makes the failure that is then thrown
 */
export function within<T>(work: Promise<T>, limit: number, late: () => Failure): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), limit * 1000)
  })
  return Promise.race([work, over]).finally(() => clearTimeout(timer))
}

/** Waits for `seconds`, or until the function that it passes to `handOut` is called. */
export function pause(seconds: number, handOut?: (end: () => void) => void): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, Math.max(0, seconds) * 1000)
    handOut?.(() => {
      clearTimeout(timer)
      resolve()
    })
  })
}

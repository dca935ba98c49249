import { constants } from 'node:os'

type Signal = 'SIGINT' | 'SIGTERM' | 'SIGHUP'

/** What the user needs to know about work that was cut short, as parts of one sentence. */
interface Said {
  /** What the work leaves behind. */
  left: string
  /** How to continue, if running the same command again does not. */
  goOn?: string
}

/** Callbacks to run before a signal ends the task, the last one first. */
const closing: (() => Said | void)[] = []

/**
 * Registers a callback for when a signal ends the task (Ctrl-C, the terminal closed). It must not
 * wait for anything, because the user is waiting for the prompt.
 * @returns a function that unregisters the callback
 */
export function whenCutShort(close: () => Said | void): () => void {
  closing.push(close)
  return () => {
    const at = closing.lastIndexOf(close)
    if (at >= 0) closing.splice(at, 1)
  }
}

let ending = false

/** Whether a signal is ending the task; failures caused by that are not reported. */
export const isCutShort = (): boolean => ending

/** Loaded in advance, because Ctrl-C also ends the process that compiles for tsx. */
let vms: typeof import('./vm/vm.ts') | undefined

/**
 * Sets how a signal ends the task: the screen keeps its content, one line says what still runs and how to
 * continue, and the exit code is the one that shells use. Commands started by `run` end with the task, and
 * its locks are released.
 */
export function endOnSignals(task: string): void {
  const end = (signal: Signal): void => {
    // our parent may pass on a signal that we also got directly
    if (ending) return
    ending = true
    const said = closing.toReversed().flatMap((close) => close() || [])
    // overwrite the `^C` at the beginning of the line
    const from = process.stderr.isTTY && process.env['TERM'] !== 'dumb' ? '\r\u001b[K' : ''
    const left = said.map((one) => one.left)
    const goOn = said.map((one) => one.goOn).find(Boolean)
    const words = [...left, whatStillRuns(), goOn ?? 'the same command again goes on from here']
    process.stderr.write(`${from}${task}: Cut short: ${words.join('; ')}\n`)
    process.exit(128 + constants.signals[signal])
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end)
}

/** Call this once it is clear that there is work to do. */
export async function loadForSignals(): Promise<void> {
  vms = await import('./vm/vm.ts')
}

function whatStillRuns(): string {
  const { knownVms, qemuOf, readVm } = vms ?? {}
  let known: string[]
  try {
    known = knownVms?.() ?? []
  } catch {
    // a LAB_HOME that the lab refuses must not end this with a stack trace
    return 'which VMs run is not known (just status says why)'
  }
  const running = known.filter((host) => {
    try {
      const vm = readVm?.(host)
      return vm && qemuOf?.(vm)
    } catch {
      // reporting an unreadable record is left to other commands
      return false
    }
  })
  if (running.length === 0) return 'no VM runs'
  const names = running.join(' and ')
  return `${names} still ${running.length > 1 ? 'run' : 'runs'} (just down ends that)`
}

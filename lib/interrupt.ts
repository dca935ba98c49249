import { constants } from 'node:os'

type Signal = 'SIGINT' | 'SIGTERM' | 'SIGHUP'

/** What a person has to know of work that was cut short, as parts of one sentence. */
interface Said {
  /** What is left of it. */
  left: string
  /** How to go on, where the same command does not go on from there. */
  goOn?: string
}

/** What is to be done before a signal ends the task, the last one first. */
const closing: (() => Said | void)[] = []

/**
 * Has something done when a signal ends the task (Ctrl-C, the terminal closed): at once and without
 * waiting, as the prompt is waited for.
 * @returns what takes it back
 */
export function whenCutShort(close: () => Said | void): () => void {
  closing.push(close)
  return () => {
    const at = closing.lastIndexOf(close)
    if (at >= 0) closing.splice(at, 1)
  }
}

let ending = false

/** Whether a signal is ending the task: what fails because of it is not told. */
export const isCutShort = (): boolean => ending

/** Loaded while there is time: Ctrl-C ends the process that compiles for tsx, too. */
let vms: typeof import('./vm/vm.ts') | undefined

/**
 * From now on a signal ends the task like this: what is on the screen stays, one line says what still runs
 * and how to go on, and the exit code is the one that shells give. Commands that were started by `run` end
 * with the task, and so do its locks.
 */
export function endOnSignals(task: string): void {
  // nobody may be there any more to read it
  process.stderr.on('error', () => {})
  const end = (signal: Signal): void => {
    // who started us hands on what it got itself
    if (ending) return
    ending = true
    const said = closing.toReversed().flatMap((close) => close() || [])
    // `^C` stands where the line begins
    const from = process.stderr.isTTY && process.env['TERM'] !== 'dumb' ? '\r\u001b[K' : ''
    const left = said.map((one) => one.left)
    const goOn = said.map((one) => one.goOn).find(Boolean)
    const words = [...left, whatStillRuns(), goOn ?? 'the same command again goes on from here']
    process.stderr.write(`${from}${task}: Cut short: ${words.join('; ')}\n`)
    process.exit(128 + constants.signals[signal])
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end)
}

/** To be called once it is clear that there is work to do. */
export async function loadForSignals(): Promise<void> {
  vms = await import('./vm/vm.ts')
}

function whatStillRuns(): string {
  const { knownVms, qemuOf, readVm } = vms ?? {}
  let known: string[]
  try {
    known = knownVms?.() ?? []
  } catch {
    // nor may a LAB_HOME that is none of the lab's end this in a stack
    return 'which VMs run is not known (just status says why)'
  }
  const running = known.filter((host) => {
    try {
      const vm = readVm?.(host)
      return vm && qemuOf?.(vm)
    } catch {
      // a record that cannot be read is another command's to tell
      return false
    }
  })
  if (running.length === 0) return 'no VM runs'
  const names = running.join(' and ')
  return `${names} still ${running.length > 1 ? 'run' : 'runs'} (just down ends that)`
}

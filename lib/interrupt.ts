import { constants } from 'node:os'

type Signal = 'SIGINT' | 'SIGTERM' | 'SIGHUP'

/** What is to be done before a signal ends the task, the last one first. May say one thing about it. */
const closing: (() => string | void)[] = []

/**
 * Has something done when a signal ends the task (Ctrl-C, the terminal closed): at once and without
 * waiting, as the prompt is waited for.
 * @param close may return what a person has to know of it, as half a sentence
 * @returns what takes it back
 */
export function whenCutShort(close: () => string | void): () => void {
  closing.push(close)
  return () => {
    const at = closing.lastIndexOf(close)
    if (at >= 0) closing.splice(at, 1)
  }
}

/**
 * From now on a signal ends the task like this: what is on the screen stays, one line says what still runs
 * and how to go on, and the exit code is the one that shells give. Commands that were started by `run` end
 * with the task, and so do its locks.
 */
export function endOnSignals(task: string): void {
  // nobody may be there any more to read it
  process.stderr.on('error', () => {})
  let ending = false
  const end = async (signal: Signal): Promise<void> => {
    const code = 128 + constants.signals[signal]
    if (ending) process.exit(code)
    ending = true
    const said = closing.toReversed().flatMap((close) => close() || [])
    const line = await whatStillRuns().catch(() => [])
    // `^C` stands where the line begins
    const from = process.stderr.isTTY && process.env['TERM'] !== 'dumb' ? '\r\u001b[K' : ''
    const words = [...said, ...line, 'the same command again goes on from here'].join('; ')
    process.stderr.write(`${from}${task}: Cut short: ${words}\n`)
    process.exit(code)
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => void end(signal))
  }
}

async function whatStillRuns(): Promise<string[]> {
  const { knownVms, qemuOf, readVm } = await import('./vm/vm.ts')
  const running = knownVms().filter((host) => {
    const vm = readVm(host)
    return vm && qemuOf(vm)
  })
  if (running.length === 0) return ['no VM runs']
  const names = running.join(' and ')
  return [`${names} still ${running.length > 1 ? 'run' : 'runs'} (just down ends that)`]
}

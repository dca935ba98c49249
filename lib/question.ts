import { createInterface } from 'node:readline'

/** Whether standard input and error are a terminal, so that a person can see and answer a question. */
export const canAsk = (): boolean => process.stdin.isTTY && process.stderr.isTTY

/**
 * Asks a person for a yes. Enter alone means no, as the question says; so does Ctrl-D. Ctrl-C ends the task.
 * @param question one line, such as `Delete sorrow?`
 */
export async function agreed(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await new Promise<string | undefined>((resolve) => {
    // the terminal is in raw mode and has sent no signal
    terminal.on('SIGINT', () => {
      terminal.off('close', ended).close()
      process.stderr.write('\n')
      process.emit('SIGINT', 'SIGINT')
    })
    const ended = (): void => resolve(undefined)
    terminal.on('close', ended)
    terminal.question(`${question} [y/N] (Enter means no) `, resolve)
  })
  // Ctrl-D leaves the cursor behind the question
  if (answer === undefined) process.stderr.write('\n')
  terminal.close()
  return /^y(es)?$/i.test(answer?.trim() ?? '')
}

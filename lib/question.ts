import { createInterface } from 'node:readline'

/** Whether somebody sits at a terminal who sees a question and can answer it. */
export const canAsk = (): boolean => Boolean(process.stdin.isTTY && process.stderr.isTTY)

/**
 * Asks a person for a yes. Enter alone means no, as the question says; so does Ctrl-D. Ctrl-C ends the task.
 * @param question one line, without its question mark's answers: `Delete sorrow?`
 */
export async function agreed(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  // the terminal is in raw mode, so nobody else has seen this Ctrl-C
  terminal.on('SIGINT', () => {
    terminal.close()
    process.stderr.write('\n')
    process.kill(process.pid, 'SIGINT')
  })
  const answer = await new Promise<string | undefined>((resolve) => {
    terminal.question(`${question} [y/N] (Enter means no) `, resolve)
    terminal.on('close', () => resolve(undefined))
  })
  // Ctrl-D leaves the cursor behind the question
  if (answer === undefined) process.stderr.write('\n')
  terminal.close()
  return /^y(es)?$/i.test(answer?.trim() ?? '')
}

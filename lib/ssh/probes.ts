import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { project } from '../settings.ts'
import type { Ssh } from './ssh.ts'

export interface Answer {
  code: number
  /** Standard output and error, trimmed. */
  text: string
}

/**
 * Runs bash snippets in a guest side by side, as the user who is logged in, over one command of one
 * connection. They may call what `probes.sh` declares: `unit <name>` and `failed`.
 * @param probes snippet by a name of letters and digits
 * @param limit seconds for all of it, with the 120 that a guest gets which still boots
 * @param each seconds that a probe may take; one that hangs is killed and has no answer, the others have theirs
 */
export async function probe(
  ssh: Ssh,
  probes: Record<string, string>,
  limit: number,
  each = 55,
): Promise<Record<string, Answer>> {
  const answers: Record<string, Answer> = {}
  const onLine = (line: string): void => {
    // oxlint-disable-next-line no-control-regex -- the record separator, which no text has
    const [, name, code, text = ''] = /^\u001e(\w+) (\d+) ([^]*)$/.exec(line) ?? []
    if (!name) return
    const lines = text.replaceAll(/\\(.)/g, (_, c: string) => (c === 'n' ? '\n' : c))
    answers[name] = { code: Number(code), text: lines.trim() }
  }
  const names = Object.keys(probes)
  const script = [
    readFileSync(join(project, 'lib/ssh/probes.sh'), 'utf8'),
    // all are asked before one is waited for
    ...names.map((name) => `exec {fd_${name}}< <(ask ${quote(probes[name]!)}); pid_${name}=$!`),
    `end=$((SECONDS + ${each}))`,
    ...names.map((name) => `tell ${name} "$fd_${name}" "$pid_${name}"`),
    'exit 0',
  ]
  try {
    await ssh.exec('exec bash -s', { input: `${script.join('\n')}\n`, timeout: limit, onLine })
  } catch (thrown) {
    if (!(thrown instanceof Failure) || Object.keys(answers).length === 0) throw thrown
  }
  return answers
}

/** A word for a POSIX shell. */
export const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

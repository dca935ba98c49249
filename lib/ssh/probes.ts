import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { quote } from '../quote.ts'
import { project } from '../settings.ts'
import type { Ssh } from './ssh.ts'

export interface Answer {
  code: number
  /** Standard output and error, trimmed. */
  text: string
}

export interface Probe {
  /** bash, which may call the functions of `probes.sh`: `unit <name>` and `failed`. */
  snippet: string
  /** Whether it starts a program. A snippet that does not runs in the main shell, without a process for it. */
  programs: boolean
}

/**
 * Runs snippets in a guest, as the user who is logged in, in a single SSH command. Those that start
 * programs run in parallel.
 * @param probes by a name of letters and digits
 * @param limit seconds for everything, including up to 120 for a guest that still boots
 * @param each seconds that a probe may take; one that hangs is killed and gets no answer, the others do
 */
export async function probe(
  ssh: Ssh,
  probes: Record<string, Probe>,
  limit: number,
  each = 55,
): Promise<Record<string, Answer>> {
  const answers: Record<string, Answer> = {}
  let lines: string[] = []
  const onLine = (line: string): void => {
    // oxlint-disable-next-line no-control-regex -- the record separator, which occurs in no text
    const [, name, code] = /^\u001e(\w+)(?: (\d+))?$/.exec(line) ?? []
    if (code !== undefined) answers[name!] = { code: Number(code), text: lines.join('\n').trim() }
    if (name === undefined) lines.push(line)
    else lines = []
  }
  const all = Object.entries(probes)
  const asked = all.filter(([, { programs }]) => programs)
  const script = [
    readFileSync(join(project, 'lib/ssh/probes.sh'), 'utf8'),
    ...asked.map(
      ([name, { snippet }]) => `exec {fd_${name}}< <(ask ${quote(snippet)}); pid_${name}=$!`,
    ),
    `end=$((SECONDS + ${each}))`,
    ...all
      .filter(([, { programs }]) => !programs)
      .map(([name, { snippet }]) => `tell_now ${name} ${quote(snippet)}`),
    ...asked.map(([name]) => `tell ${name} "$fd_${name}" "$pid_${name}"`),
    'exit 0',
  ]
  try {
    await ssh.exec('exec bash -s', { input: `${script.join('\n')}\n`, timeout: limit, onLine })
  } catch (thrown) {
    if (!(thrown instanceof Failure) || Object.keys(answers).length === 0) throw thrown
  }
  return answers
}

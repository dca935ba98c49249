import type { Ssh } from './ssh.ts'

export interface Answer {
  code: number
  /** Standard output and error, trimmed. */
  text: string
}

/**
 * Runs shell commands in a guest side by side, as root, over one command of one connection: under
 * TCG each further command would cost a third of a second.
 * @param probes command text by a name of letters and digits
 * @param limit seconds for all of them together; one that hangs answers with code 124
 */
export async function probe(
  ssh: Ssh,
  probes: Record<string, string>,
  limit: number,
): Promise<Record<string, Answer>> {
  const names = Object.keys(probes)
  const script = [
    'd=$(mktemp -d) || exit 1',
    `trap 'rm -rf "$d"' EXIT`,
    ...names.map((name) => {
      const run = `timeout ${limit} sh -c ${quote(probes[name]!)} </dev/null >"$d/${name}" 2>&1`
      return `{ ${run}; echo $? >"$d/${name}.code"; } &`
    }),
    'wait',
    `for n in ${names.join(' ')}; do printf '\\036%s %s\\n' "$n" "$(cat "$d/$n.code")"; cat "$d/$n"; done`,
  ]
  const { stdout } = await ssh.exec('sudo -n sh -s', {
    input: `${script.join('\n')}\n`,
    timeout: limit + 30,
  })
  const answers: Record<string, Answer> = {}
  // the record separator cannot be in what the commands print as text
  for (const part of stdout.split('\u001e').slice(1)) {
    const [head = '', ...lines] = part.split('\n')
    const [name = '', code] = head.split(' ')
    answers[name] = { code: Number(code), text: lines.join('\n').trim() }
  }
  return answers
}

/** A word for a POSIX shell. */
export const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

import { quote } from '../quote.ts'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

/** How often each line was at work, by file of nix/agents, line, and first word of what bash ran there. */
export type Hits = Record<string, Record<number, Record<string, number>>>

/** Where a traced program writes, where it is: in a scratch root, and in a guest. */
export const traceDirectories = ['/trace', '/var/lib/agent-trace']

/**
 * An agent that traces itself by bash's own xtrace, where there is a directory for that. What does it takes
 * the place of the first line, a comment, so that all others keep their numbers. An agent is put together from
 * several files, and each of them says at which line of the whole it begins. A program of another shell than
 * bash is left as it is.
 */
export function traced(file: string, text: string, directories = traceDirectories): string {
  if (text.startsWith('#!')) return text
  const start = [
    `for lab_dir in ${directories.join(' ')}; do [ -d "$lab_dir" ] || continue`,
    'exec 98>>"$lab_dir/$$.$RANDOM"; BASH_XTRACEFD=98 lab_traced=yes',
    `PS4='+@\${BASH_SOURCE[0]-}:\${LINENO}: '; set -x; break; done`,
  ].join('; ')
  const once = `[ -z "\${BASH_VERSION-}" ] || [ -n "\${lab_traced-}" ] || eval ${quote(start)}`
  const first = text.indexOf('\n')
  return `${once}; : "@file ${file} $LINENO"${text.slice(first)}`
}

/** Reads what one process has written, into `hits`. */
export function readTrace(text: string, hits: Hits): void {
  const begins = new Map<string, { file: string; line: number }[]>()
  const steps: { source: string; line: number; word: string }[] = []
  for (const row of text.split('\n')) {
    const [, source, line, command] = /^\++@(.*?):(\d+): (.*)$/.exec(row) ?? []
    if (source === undefined) continue
    const [, file, at] = /^: '@file (\S+) (\d+)'$/.exec(command!) ?? []
    if (file) begins.set(source, [...(begins.get(source) ?? []), { file, line: Number(at) }])
    else steps.push({ source, line: Number(line), word: firstWord(command!) })
  }
  for (const { source, line, word } of steps) {
    const part = begins.get(source)?.findLast((one) => one.line <= line)
    // its first line is what traces
    if (!part || line === part.line) continue
    const words = ((hits[part.file] ??= {})[line - part.line + 1] ??= {})
    words[word] = (words[word] ?? 0) + 1
  }
}

/** The word that tells one command on a line from another; an assignment up to its `=`. */
export const firstWord = (command: string): string =>
  /^\w+(?:\[.*?\])?\+?=/.exec(command)?.[0].replace(/\[.*\]|\+/g, '') ?? command.split(' ')[0]!

export const merge = (into: Hits, from: Hits): void => {
  for (const [file, lines] of Object.entries(from))
    for (const [line, words] of Object.entries(lines))
      for (const [word, times] of Object.entries(words)) {
        const known = ((into[file] ??= {})[Number(line)] ??= {})
        known[word] = (known[word] ?? 0) + times
      }
}

/** What each test has run, of the traces that tests/agents/root.ts keeps apart: by the test's name. */
export function readTraces(directory: string): Map<string, Hits> {
  const found = new Map<string, Hits>()
  if (!existsSync(directory)) return found
  for (const each of readdirSync(directory)) {
    const hits: Hits = {}
    for (const name of readdirSync(join(directory, each)))
      if (name !== 'test.json') readTrace(readFileSync(join(directory, each, name), 'utf8'), hits)
    const test = JSON.parse(readFileSync(join(directory, each, 'test.json'), 'utf8')) as string
    found.set(test.replaceAll(' > ', ' '), hits)
  }
  return found
}

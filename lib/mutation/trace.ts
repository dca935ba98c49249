import { quote } from '../quote.ts'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

/** How often each line ran, by file of nix/agents, line, and first word of the command that bash ran there. */
export type Hits = Record<string, Record<number, Record<string, number>>>

/** Where a traced program writes, if the directory exists: in a scratch root, and in a guest. */
export const traceDirectories = ['/trace', '/var/lib/agent-trace']

/**
 * An agent that traces itself with bash's xtrace, where one of the directories exists. The code for that replaces the
 * first line, a comment, so that all other lines keep their numbers. An agent is assembled from several files, and each
 * of them reports at which line of the whole it begins. A program for another shell than bash is not changed.
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

/** Reads the trace of one process into `hits`. */
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
    // its first line is the tracing code
    if (!part || line === part.line) continue
    const words = ((hits[part.file] ??= {})[line - part.line + 1] ??= {})
    words[word] = (words[word] ?? 0) + 1
  }
}

/** The word that distinguishes commands on the same line; an assignment up to its `=`. */
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

/** What each test has run, by the test's name; tests/agents/root.ts keeps their traces in separate directories. */
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

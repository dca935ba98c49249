import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Options, PositionalOptions } from 'yargs'
import { Exit, Failure, explain, orUnwritable, usage, type ExitCode } from './failure.ts'
import { endOnSignals, isCutShort, loadForSignals } from './interrupt.ts'
import { suggest } from './nearest.ts'
import { loadEnv } from './settings.ts'

/** A yargs option that can also be set by an environment variable (and so by `.env`). */
export type Option = Options & {
  env?: string
  /** Least value of a number, which is always a whole one; default 0. */
  least?: number
  /** Greatest value of a number; default the largest that 32 bits hold. */
  most?: number
}

/** What one task file exports. Its name is also that of the file, of the recipe and of the step in the log. */
export interface Task {
  name: string
  /** One sentence: the first line of --help, of `just --list` and the title in a pipeline. */
  describe: string
  /** Positional arguments in yargs' grammar, such as `[host..]`. */
  usage?: string
  positionals?: Record<string, PositionalOptions>
  options?: Record<string, Option>
  /** More lines for the end of --help, by heading. */
  parts?: Record<string, string[]>
  /** The commands that really do the work, printed at the end of --help. */
  under: string[]
  examples: [command: string, meaning: string][]
  /** The program that the task starts, such as ssh, handles Ctrl-C. */
  ownSignals?: boolean
  /** The task shows a stream and ends when its reader goes away. */
  endsWithReader?: boolean
  /**
   * Resolves with an exit code, or with nothing if all checks held. Large modules that only the work needs
   * are imported in here: each file adds 3 ms to the start, and --help is called most often.
   */
  run: (args: Args) => Promise<ExitCode | void>
}

/** Parsed arguments; each task narrows what it declared. */
// oxlint-disable-next-line typescript/no-explicit-any -- yargs infers nothing across files
export type Args = Record<string, any>

/** Runs the task when its file was started directly; an import does nothing. */
export async function main(meta: ImportMeta, task: Task): Promise<void> {
  const started = process.argv[1]
  if (!started || realpathSync(started) !== fileURLToPath(meta.url)) return
  // deprecations concern libraries (Node 24 reports some for zx), and the user can do nothing about them
  process.noDeprecation = true
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // its reader went away (`| head`): the work goes on, because the exit code has to tell its result
    if (['EPIPE', 'ERR_STREAM_DESTROYED'].includes(error.code ?? '')) {
      if (task.endsWithReader) process.exit(Exit.held)
      return
    }
    process.stderr.write(`${task.name}: Cannot write to standard output: ${error.code}\n`)
    process.exit(Exit.labCouldNotRun)
  })
  // what cannot be told must not change the exit code: its reader may be gone, the disk of a log full
  process.stderr.on('error', () => {})
  if (!task.ownSignals) endOnSignals(task.name)
  try {
    await loadEnv()
    const args = await parse(task, process.argv.slice(2))
    if (args) await loadForSignals()
    process.exitCode = args ? ((await task.run(args)) ?? Exit.held) : Exit.held
  } catch (error) {
    if (isCutShort()) return
    const thrown = orUnwritable(error)
    process.stderr.write(`${explain(task.name, thrown)}\n`)
    process.exitCode = thrown instanceof Failure ? thrown.exit : Exit.labCouldNotRun
  }
  // a socket that is still closing must not delay the prompt
  if (process.exitCode === undefined) return
  // wait until a slow reader (`| less`) has taken all output: a pipe holds only 64 KiB
  for (const stream of [process.stdout, process.stderr]) {
    if (stream.writableLength > 0) await new Promise((taken) => stream.write('', taken))
  }
  setTimeout(() => process.exit(), 500).unref()
}

/**
 * Parses a command line as the task declares it. Returns undefined if it asked for help.
 * @throws Failure (usage) for an unknown flag, a missing or an extra argument, an invalid value
 */
export async function parse(task: Task, argv: string[]): Promise<Args | undefined> {
  // required, not imported: each imported file goes through tsx's loader in another thread, which takes a sixth
  // of a task's time to start
  const { createRequire } = await import('node:module')
  const yargs = createRequire(import.meta.url)('yargs') as typeof import('yargs').default
  const options: Record<string, Options> = {}
  for (const [key, { env, least, most, type, ...option }] of Object.entries(task.options ?? {})) {
    const set = env === undefined ? undefined : process.env[env]
    options[key] = {
      ...option,
      // parsed as text and only shown as a number in --help, because yargs would turn a typing error into NaN
      ...(type === 'number' ? { number: true, string: true } : { type }),
      // so that `--memory -1G` is a wrong size rather than an unknown flag
      ...(type === 'boolean' || option.array ? {} : { nargs: 1 }),
      ...(set === undefined || set === ''
        ? {}
        : { default: fromEnv(set, { type, least, most }, env!) }),
      describe: env ? `${option.describe} (${env})` : option.describe,
    }
  }
  // only a task that takes a command line needs what yargs sets aside after `--`
  const given = hostsAsDeclared(task, argv)
  const words = task.usage?.includes('[command..]') ? given : given.filter((word) => word !== '--')
  // yargs would drop it, and a task without a host's name means every host
  if (words.includes('-')) throw usage('Cannot read `-` as an argument')
  refuseOddFlags(task, words)
  let help = ''
  const parsed = await yargs([])
    .scriptName(`tsx tasks/${task.name}.ts`)
    .command(`$0 ${task.usage ?? ''}`.trim(), task.describe, (y) => {
      for (const [key, positional] of Object.entries(task.positionals ?? {})) {
        y.positional(key, { type: 'string', ...positional })
      }
      return y
    })
    .options(options)
    .strict()
    // messages are matched by their words, below and in tests
    .locale('en')
    .version(false)
    .help()
    // a narrower terminal would break the columns of the help anywhere
    .wrap(Math.min(100, process.stdout.columns || 100))
    .parserConfiguration({ 'populate--': true, 'boolean-negation': false, 'dot-notation': false })
    .fail((message: string, error: Error | undefined) => {
      throw error && error.name !== 'YError' ? error : misread(message, task, words)
    })
    .exitProcess(false)
    .parseAsync(words, {}, (_error, _args, output) => {
      help = output
    })
  if (help) {
    process.stdout.write(`${help}\n\n${epilogue(task)}\n`)
    return undefined
  }
  for (const [key, option] of Object.entries(task.options ?? {})) {
    const value: unknown = parsed[key]
    if (Array.isArray(value) && !option.array) throw usage(`Flag --${key} is given twice`)
    if (value === '') throw withoutValue(key, task.name)
    if (option.type === 'number' && typeof value === 'string')
      parsed[key] = wholeNumber(value, option, `--${key}`)
  }
  return parsed
}

/**
 * Refuses what yargs would silently misread: `--dry-run=yes` as no dry run; a list flag without a name as no list,
 * which would mean all; a positional written as a flag as one word and not a list; and a flag copied from a page
 * that turned its two hyphens into a dash as a host.
 */
function refuseOddFlags(task: Task, words: string[]): void {
  const { name, options = {}, positionals = {} } = task
  const own = words.includes('--') ? words.slice(0, words.indexOf('--')) : words
  for (const [index, word] of own.entries()) {
    const [, pasted] = /^[\u2010-\u2015\u2212]+-*(.*)/s.exec(word) ?? []
    if (pasted !== undefined)
      throw usage(
        `Cannot read \`${word}\`: it begins with a dash that is not a hyphen`,
        `Type it with hyphens: --${pasted}`,
      )
    const [, key = '', value = own[index + 1]] = /^--([^=]+)(?:=(.*))?$/s.exec(word) ?? []
    if (key in positionals && !(key in options))
      throw usage(`Unknown argument: ${key}`, `Write it without a flag: ${commandOf(task)}`)
    const { type, array } = options[key] ?? {}
    if (type === 'boolean' && word.includes('=') && value !== 'true' && value !== 'false')
      throw usage(`Cannot read \`${value}\` in --${key}`, `Write --${key} alone`)
    if (array && (!value || value.startsWith('-'))) throw withoutValue(key, name)
  }
}

/**
 * A task that is only about hosts declares them as positionals, any other as --host. Both forms are accepted
 * everywhere, and so is --vm, the former name of the flag.
 * @throws Failure (usage) for a flag without a name
 */
function hostsAsDeclared({ options, positionals }: Task, argv: string[]): string[] {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length
  const [words, rest] = [argv.slice(0, end), argv.slice(end)]
  const flag = /^--(?:host|vm)(?:=|$)/
  if (options?.['host'])
    return [...words.map((word) => word.replace(/^--vm(?=$|=)/, '--host')), ...rest]
  if (!positionals?.['host']) return argv
  const hosts: string[] = []
  const others: string[] = []
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    if (!flag.test(word)) others.push(word)
    else {
      const name = word.includes('=') ? word.slice(word.indexOf('=') + 1) : words[++at]
      if (!name || name.startsWith('-'))
        throw usage(`Cannot read ${word} without the name of a host`)
      hosts.push(name)
    }
  }
  // hosts come first: a flag that takes several words would swallow them
  return [...hosts, ...others, ...rest]
}

/** The failure for what yargs could not read, with the flags that may have been meant. */
function misread(message: string, task: Task, words: string[]): Failure {
  const { name, options } = task
  const help = `tsx tasks/${name}.ts --help`
  const [, bare] = /^Not enough arguments following: (.+)/.exec(message) ?? []
  if (bare !== undefined) return withoutValue(bare, name)
  if (message.startsWith('Not enough non-option arguments'))
    return usage('Cannot begin: an argument is missing', `${commandOf(task)}; ${help}`)
  // yargs names an unknown flag with a hyphen a second time, without the hyphen
  const [, word] = /^Unknown arguments?: ([^,]+)/.exec(message) ?? []
  if (word === undefined) return usage(message, help)
  const isFlag = words.some((one) => one.startsWith('-') && one.replace(/^-+|=.*$/gs, '') === word)
  if (!isFlag) return usage(`Unknown argument: ${word}`, help)
  const flags = Object.keys(options ?? {}).map((key) => `--${key}`)
  return usage(`Unknown argument: ${word}`, `${suggest(`--${word}`, flags)}${help} lists all flags`)
}

/** The command that runs a task, with its positionals. */
const commandOf = ({ name, usage: words = '' }: Task): string =>
  `tsx tasks/${name}.ts ${words}`.trim()

const withoutValue = (flag: string, task: string): Failure =>
  usage(`Cannot read --${flag} without a value`, `tsx tasks/${task}.ts --help`)

/** Not printed by yargs, which would wrap a command in the middle. */
const epilogue = ({ parts, under, examples }: Task): string =>
  Object.entries({
    Examples: examples.flatMap(([command, meaning]) => [command, `  ${meaning}`]),
    ...parts,
    'Under the hood': under,
  })
    .map(([heading, lines]) => [`${heading}:`, ...lines.map((line) => `  ${line}`)].join('\n'))
    .join('\n\n')

function fromEnv(text: string, option: Option, variable: string): string | number | boolean {
  if (option.type === 'boolean') return !['0', 'false', 'no'].includes(text.toLowerCase())
  return option.type === 'number' ? wholeNumber(text.trim(), option, variable) : text
}

/**
 * Reads a number written in digits alone.
 * @param where the flag or the variable
 * @throws Failure (usage) for any other text, and for a number outside the option's range
 */
function wholeNumber(text: string, { least = 0, most }: Option, where: string): number {
  const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN
  if (value >= least && value <= (most ?? 2 ** 32 - 1)) return value
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text
  throw usage(
    `Cannot take \`${shown}\` for ${where}`,
    `Write a whole number from ${least} ${most === undefined ? 'on' : `to ${most}`}`,
  )
}

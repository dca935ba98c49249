import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Addition, Edit } from '../lib/flake/edit.ts'
import type { Marked } from '../lib/flake/git-index.ts'
import type { Asked } from '../lib/flake/check.ts'
import { Failure } from '../lib/failure.ts'
import { main, type Args } from '../lib/task.ts'

export const name = 'add-to-flake'
export const describe = 'Add a host to a flake.nix, leaving every other byte as it is'
export const usage = '<host>'
export const positionals = { host: { describe: 'Host to add' } }
export const options = {
  flake: { type: 'string', describe: 'Directory of the flake; default: LAB_FLAKE or this one' },
  like: { type: 'string', describe: 'Host to copy; default: one of the most common form' },
  json: { type: 'boolean', describe: 'Print data instead of sentences' },
  'dry-run': { type: 'boolean', describe: 'Show every effect, but change nothing' },
} as const
export const under = [
  'nix-instantiate --parse                the edited text, before it replaces the file',
  'nix-instantiate --eval                 the names in its nixosConfigurations',
  'git add --intent-to-add hosts/<name>   a flake does not see what git does not know',
]
export const examples: [string, string][] = [
  ['just add-to-flake sorrow', 'Add it to the flake of LAB_FLAKE'],
  ['tsx tasks/add-to-flake.ts web --flake ~/nixos --dry-run', 'Show the new lines, write nothing'],
]

/** What `--json` prints. */
interface Report {
  host: string
  outcome: 'added' | 'would be added' | 'present' | 'discovered'
  file: string
  /** Of the host's entry, or of the code that finds the hosts; counts from 1. None if only nix finds the host. */
  line?: number
  inserted?: string
  /** The host whose entry was copied, and why. */
  like?: string
  reason?: string
  /** The directory whose listing makes the hosts. */
  directory?: string
  /** Whether nix accepted the edit. */
  parsed?: Asked
  evaluated?: Asked
  /** Files that were marked for git, relative to the flake. */
  marked: string[]
  /** What the user should look at. */
  notes: string[]
}

export async function run(args: Args): Promise<void> {
  const { hostName } = await import('../lib/host-name.ts')
  const { flakeDirectory } = await import('../lib/flake/directory.ts')
  const { withDirectory } = await import('../lib/write-file.ts')
  const host = hostName(args['host'])
  const flake = flakeDirectory(args['flake'])
  // a second process waits, then edits the result of the first
  const report = await withDirectory(flake, 180, () => add(flake, host, args))
  console.log(args['json'] ? JSON.stringify(report, undefined, 2) : inWords(report))
}

async function add(flake: string, host: string, args: Args): Promise<Report> {
  const { readRegular } = await import('../lib/write-file.ts')
  const { addHost } = await import('../lib/flake/edit.ts')
  readRegular(join(flake, 'flake.nix'))
  const addition = await orNix(flake, host, () => addHost(flake, host, args['like']))
  if (!addition) {
    const evaluated = { asked: true } as const
    return {
      host,
      outcome: 'present',
      file: join(flake, 'flake.nix'),
      evaluated,
      marked: [],
      notes: [],
    }
  }
  const { outcome, file, line, own } = addition
  const told = (paths: string[]) =>
    mark(flake, [join(flake, 'hosts', host), own.path, file], paths, Boolean(args['dry-run']))
  if (outcome === 'present') return { host, outcome, file, line, ...(await told([])) }
  if (outcome === 'discovered' || outcome === 'likely') {
    const { directory } = addition
    const { takes } = await import('../lib/flake/check.ts')
    const evaluated = await takes(flake, directory, host, own.main).catch((left: unknown) => {
      throw outcome === 'likely' && left instanceof Failure ? addition.refused : left
    })
    if (outcome === 'likely' && !evaluated.asked) {
      const { message, detail } = addition.refused
      const there = `\`${own.path}\` exists, but nix does not say whether it is a host: ${evaluated.why}`
      throw new Failure(message, { ...detail, evidence: existsSync(own.path) ? there : undefined })
    }
    const marked = await told([own.path])
    return { host, outcome: 'discovered', file, line, directory, evaluated, ...marked }
  }
  const { inserted, like, reason, paths } = addition
  const asked = await write(flake, host, addition, args['dry-run'])
  const { marked, notes } = await told(paths)
  const made = { inserted, like, reason, ...asked, marked, notes: [...addition.notes, ...notes] }
  return { host, outcome: args['dry-run'] ? 'would be added' : 'added', file, line, ...made }
}

/** The addition; undefined if the source does not show the host but nix already has it. */
async function orNix(
  flake: string,
  host: string,
  work: () => Promise<Addition>,
): Promise<Addition | undefined> {
  const { has } = await import('../lib/flake/check.ts')
  try {
    const addition = await work()
    return addition.outcome === 'likely' && (await has(flake, host)) ? undefined : addition
  } catch (refused) {
    if (refused instanceof Failure && (await has(flake, host))) return undefined
    throw refused
  }
}

/** Checks the edit with nix, and writes it unless nix rejects it. */
async function write(flake: string, host: string, edit: Edit, dryRun: boolean) {
  const { parses, evaluates } = await import('../lib/flake/check.ts')
  const { readRegular, requireWritable, writeFile } = await import('../lib/write-file.ts')
  requireWritable(readRegular(edit.file))
  const parsed = await parses(flake, edit)
  const evaluated = parsed.asked ? await evaluates(flake, edit, host) : parsed
  const over = { ...readRegular(edit.file), bytes: Buffer.from(edit.before) }
  if (!dryRun) writeFile(edit.file, edit.after, { over })
  return { parsed, evaluated }
}

/**
 * Marks the existing files for git, and notes the missing ones.
 * @param own where the host's files may be
 * @param wanted files that the flake will read
 */
async function mark(
  flake: string,
  own: string[],
  wanted: string[],
  dryRun: boolean,
): Promise<Marked> {
  const { intendToAdd } = await import('../lib/flake/git-index.ts')
  const { marked, notes } = await intendToAdd(
    flake,
    [...new Set([...own, ...wanted])].filter((path) => existsSync(path)),
    dryRun,
  )
  const absent = wanted.filter((path) => !existsSync(path))
  return { marked, notes: [...notes, ...absent.map((path) => `\`${path}\` is not there yet`)] }
}

function inWords(report: Report): string {
  const { host, outcome, like, reason, directory, inserted = '', marked } = report
  const where = `line ${report.line} of ${report.file}`
  const why = like === undefined ? reason : `like \`${like}\`, ${reason}`
  const headline = {
    added: `Added \`${host}\` at ${where} (${why})`,
    'would be added': `Would add \`${host}\` at ${where} (${why})`,
    present:
      report.line === undefined
        ? `Nothing to do: \`${host}\` is a host of ${report.file} already`
        : `Nothing to do: \`${host}\` is at ${where} already`,
    discovered: `Nothing to do: ${where} finds the hosts by listing ${directory}`,
  }[outcome]
  const verb = outcome === 'would be added' ? 'Would mark' : 'Marked'
  const details = [
    ...inserted
      .split(/\r?\n/)
      .filter((line) => line.trim())
      .map((line) => `+ ${line}`),
    ...nix('nix parses it', report.parsed),
    ...nix('nix evaluates the host names', report.evaluated),
    ...marked.map(
      (path) => `${verb} ${path} for git (--intent-to-add): a flake does not see untracked files`,
    ),
    ...report.notes.map((note) => `Note: ${note}`),
  ]
  return [headline, ...details.map((detail) => `  ${detail}`)].join('\n')
}

const nix = (what: string, asked?: Asked): string[] =>
  asked ? [`${what}: ${asked.asked ? 'yes' : `not known (${asked.why})`}`] : []

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

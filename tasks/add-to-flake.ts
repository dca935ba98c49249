import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Addition, Edit } from '../lib/flake-edit.ts'
import type { Asked } from '../lib/nix-check.ts'
import { main, type Args } from '../lib/task.ts'

export const name = 'add-to-flake'
export const describe = 'Add a host to a flake, in the form that its other hosts have'
export const usage = '<name>'
export const positionals = { name: { describe: 'Host to add' } }
export const options = {
  flake: { type: 'string', describe: 'Directory of the flake; LAB_FLAKE or this one without' },
  like: { type: 'string', describe: 'Host to copy, rather than one of the most common form' },
  json: { type: 'boolean', describe: 'Print data instead of sentences' },
  'dry-run': { type: 'boolean', describe: 'Show every effect, have none' },
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

/** What `--json` prints. Lines count from 1, `marked` are the files that git was told of. */
interface Report {
  host: string
  addition: Addition
  written: boolean
  parsed?: Asked
  evaluated?: Asked
  marked: string[]
  notes: string[]
}

export async function run(args: Args): Promise<void> {
  const { hostName } = await import('../lib/host-name.ts')
  const { flakeDirectory } = await import('../lib/flake-directory.ts')
  const { withDirectory } = await import('../lib/write-file.ts')
  const host = hostName(args['name'])
  const flake = flakeDirectory(args['flake'])
  // whoever comes second waits, and then edits what the first one left
  const report = await withDirectory(flake, 180, () => add(flake, host, args))
  console.log(args['json'] ? JSON.stringify(report, undefined, 2) : inWords(report))
}

async function add(flake: string, host: string, args: Args): Promise<Report> {
  const { readRegular } = await import('../lib/write-file.ts')
  const { addHost } = await import('../lib/flake-edit.ts')
  const { intendToAdd } = await import('../lib/git-index.ts')
  readRegular(join(flake, 'flake.nix'))
  const addition = await addHost(flake, host, args['like'])
  const paths = [join(flake, 'hosts', host)]
  const report: Report = { host, addition, written: false, marked: [], notes: [] }
  if (addition.outcome === 'discovered') {
    const own = join(addition.directory, host)
    paths.push(own)
    if (!existsSync(own)) report.notes.push(`\`${own}\` is not there yet`)
  }
  if (addition.outcome === 'edit') {
    paths.push(...addition.paths)
    Object.assign(report, await write(flake, host, addition, args['dry-run']))
  }
  if (!args['dry-run']) report.marked = await intendToAdd(flake, paths.filter((path) => existsSync(path)))
  return report
}

/** Has nix look at the edit, and writes it if nothing speaks against it. */
async function write(flake: string, host: string, edit: Edit, dryRun: boolean): Promise<Partial<Report>> {
  const { parses, evaluates } = await import('../lib/nix-check.ts')
  const { readRegular, writeFile } = await import('../lib/write-file.ts')
  const parsed = await parses(edit)
  const evaluated = parsed.asked ? await evaluates(flake, edit, host) : parsed
  const absent = edit.paths.filter((path) => !existsSync(path))
  const notes = [...edit.notes, ...absent.map((path) => `\`${path}\` is not there yet`)]
  if (!dryRun) {
    const over = { ...readRegular(edit.file), bytes: Buffer.from(edit.before) }
    writeFile(edit.file, edit.after, { over })
  }
  return { parsed, evaluated, notes, written: !dryRun }
}

function inWords({ host, addition, written, parsed, evaluated, marked, notes }: Report): string {
  const where = `line ${addition.line} of ${addition.file}`
  const lines: string[] = []
  if (addition.outcome === 'present') lines.push(`Nothing to do: ${where} has \`${host}\` already`)
  else if (addition.outcome === 'discovered') {
    lines.push(`Nothing to do: ${where} finds its hosts in ${addition.directory}`)
  } else {
    const like = addition.like === undefined ? '' : `like \`${addition.like}\`, `
    lines.push(`${written ? 'Added' : 'Would add'} \`${host}\` at ${where} (${like}${addition.reason})`)
    lines.push(...addition.inserted.split(/\r?\n/).filter(Boolean).map((line) => `  + ${line}`))
  }
  const asked = (what: string, of?: Asked): void => {
    if (of) lines.push(of.asked ? `  ${what}: yes` : `  ${what}: not known (${of.why})`)
  }
  asked('nix parses it', parsed)
  asked('nix evaluates the host names', evaluated)
  if (marked.length > 0) lines.push(`  git add --intent-to-add ${marked.join(' ')}: else the flake does not see it`)
  return [...lines, ...notes.map((note) => `  look at this: ${note}`)].join('\n')
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

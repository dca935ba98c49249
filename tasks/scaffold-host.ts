import { basename, join } from 'node:path'
import { usual, type HostChoices } from '../lib/scaffold/shape.ts'
import { main, type Args } from '../lib/task.ts'

export const name = 'scaffold-host'
export const describe = 'Write the configuration of a new host, in the form of hosts/sorrow'
export const usage = '<host>'
export const positionals = { host: { describe: 'Name of the new host' } }
export const options = {
  user: { type: 'string', describe: 'Primary user', default: usual.user },
  service: {
    type: 'string',
    array: true,
    describe: 'Service to enable instead of the default ones; repeat it for several',
    default: [...usual.cli, ...usual.networking],
  },
  schedule: {
    type: 'string',
    describe: 'When to upgrade, as a systemd calendar event',
    default: usual.schedule,
  },
  'disk-layout': { type: 'string', describe: 'File system of the root', default: usual.layout },
  'disk-device': {
    type: 'string',
    describe: 'Block device for the whole system',
    default: usual.device,
  },
  flake: { type: 'string', describe: 'Directory of the flake; default: LAB_FLAKE or this one' },
  force: { type: 'boolean', describe: 'Overwrite the two files of an existing host' },
  json: { type: 'boolean', describe: 'Print data instead of sentences' },
  'dry-run': { type: 'boolean', describe: 'Show every effect, but change nothing' },
} as const
export const under = [
  'systemd-analyze calendar <schedule>',
  'git add --intent-to-add hosts/<name>   a flake does not see what git does not know',
]
export const examples: [string, string][] = [
  ['just scaffold-host misery', 'A host like sorrow'],
  [
    'tsx tasks/scaffold-host.ts web --service openssh --schedule daily',
    'One service, upgraded daily',
  ],
]

const otherShape =
  "no file of this flake mentions `hostSpec`, an option that the new host sets: import `nixosModules.default` of gitops-vm-lab, or copy one of the flake's own hosts"

interface Report {
  choices: HostChoices
  files: string[]
  written: boolean
  /** Files that were marked for git, relative to the flake. */
  marked: string[]
  notes: string[]
  /** Which directory the flake lists to find its hosts, in words. */
  directory?: string
}

export async function run(args: Args): Promise<void> {
  const { flakeDirectory } = await import('../lib/flake/directory.ts')
  const { hostChoices } = await import('../lib/scaffold/choices.ts')
  const { mentions, requireRoom, writeHost, writeHostFile } =
    await import('../lib/scaffold/directory.ts')
  const { hostFile, hostFiles } = await import('../lib/scaffold/template.ts')
  const { readingPlace } = await import('../lib/flake/edit.ts')
  const { usage: usageFailure } = await import('../lib/failure.ts')
  const { pasted } = await import('../lib/quote.ts')
  const { intendToAdd } = await import('../lib/flake/git-index.ts')
  const { withDirectory } = await import('../lib/write-file.ts')
  const choices = await hostChoices({
    name: args['host'],
    user: args['user'],
    services: args['service'],
    schedule: args['schedule'],
    layout: args['disk-layout'],
    device: args['disk-device'],
  })
  const flake = flakeDirectory(args['flake'])
  const written = !args['dry-run']
  const report = await withDirectory(flake, 60, async () => {
    // where the flake will read it once add-to-flake has added it
    const { own, found } = await readingPlace(flake, choices.name)
    if (own.example) {
      const { file, whole } = own.example
      const taken = whole
        ? `takes whole systems from files such as \`${file}\``
        : `imports files such as \`${file}\`, and not as modules`
      throw usageFailure(
        `Cannot make host \`${choices.name}\`: the flake ${taken}, but this task writes a module`,
        `Write \`${own.main}\` like that one`,
      )
    }
    const single = own.main === own.path
    const texts = single ? {} : hostFiles(choices, basename(own.main))
    const paths = single ? [own.path] : Object.keys(texts).map((file) => join(own.path, file))
    requireRoom(flake, choices.name, own.path, paths, Boolean(args['force']))
    const stranger = !mentions(flake, 'hostSpec')
    if (written && single) writeHostFile(own.path, hostFile(choices))
    else if (written) writeHost(flake, own.path, texts)
    const { marked, notes } = await intendToAdd(flake, paths, !written)
    if (stranger) notes.push(otherShape)
    return { choices, files: paths, written, marked, notes, directory: found }
  })
  const add = pasted('just', 'add-to-flake', choices.name, '--flake', flake)
  const next =
    report.directory === undefined
      ? add
      : `nothing to add, the hosts are ${report.directory}; ${add} checks that nix finds it`
  if (args['json'])
    console.log(JSON.stringify({ host: choices.name, ...report, next }, undefined, 2))
  else console.log([...inWords(report), `Next: ${next}`].join('\n'))
}

function inWords({ choices, files, written, marked, notes }: Report): string[] {
  const lines = files.map((file) => `${written ? 'Wrote' : 'Would write'} ${file}`)
  for (const file of marked) {
    lines.push(
      `${written ? 'Marked' : 'Would mark'} ${file} for git (--intent-to-add): a flake does not see untracked files`,
    )
  }
  if (!choices.networking.includes('openssh')) {
    lines.push('Note: without openssh, neither you nor the lab can log in')
  }
  return [...lines, ...notes.map((note) => `Note: ${note}`)]
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

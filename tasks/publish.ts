import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pasted } from '../lib/quote.ts'
import { labFlake } from '../lib/settings.ts'
import { main, type Args } from '../lib/task.ts'
import {
  configRemote,
  dotfilesRemote,
  dotfilesSource,
  publishDotfiles,
  publishFlake,
  type Published,
} from '../lib/vm/remotes.ts'

export const name = 'publish'
export const describe = "Push the flake's current commit to the lab's remote, which the VMs follow"
export const options = {
  dirty: { type: 'boolean', describe: 'The files as they are on disk, committed or not' },
  dotfiles: { type: 'boolean', describe: 'The dotfiles of LAB_DOTFILES, instead of the flake' },
  force: { type: 'boolean', describe: 'Replace the commit of the remote, as a forced push does' },
  json: { type: 'boolean', describe: 'Print data on standard output' },
} as const
export const under = [
  'git fetch <flake> HEAD      in <LAB_HOME>/srv/.lab/config.git; the flake is only read',
  'git write-tree, commit-tree   with --dirty: uncommitted files',
  'git update-ref refs/heads/<branch>',
]
export const examples: [string, string][] = [
  ['just publish', 'The commit that is checked out; then just upgrade-test-vm'],
  ['just publish --dirty', 'Also what is not committed yet'],
]

export async function run(args: Args): Promise<void> {
  const { dirty, force } = args
  const published = await (args['dotfiles'] ? publishDotfiles : publishFlake)({ dirty, force })
  const [from, to] = args['dotfiles']
    ? [dotfilesSource(), dotfilesRemote()]
    : [labFlake(), configRemote()]
  if (args['json']) console.log(JSON.stringify(published, null, 2))
  else for (const line of told(published, from, to)) console.log(line)
}

const told = ({ commit, moved, what }: Published, from: string, to: string): string[] => [
  `${moved ? 'Published' : 'There already:'} ${what}${what.includes(commit.slice(0, 12)) ? '' : `, as ${commit.slice(0, 12)}`}`,
  ...(moved ? ['The VMs take it at their next upgrade: just upgrade-test-vm'] : []),
  // a directory that is not a repository cannot push
  ...(existsSync(join(from, '.git'))
    ? [`To push there yourself: ${pasted('git', '-C', from, 'remote', 'add', 'lab', to)}`]
    : []),
]

await main(import.meta, { name, describe, options, under, examples, run })

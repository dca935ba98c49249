import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { Failure, usage as usageFailure } from '../lib/failure.ts'
import { main, type Args } from '../lib/task.ts'
import { runningVm, sshArgs } from '../lib/vm/running.ts'

export const name = 'copy'
export const describe = 'Copy files to a VM or from it, as scp does'
export const usage = '<path..>'
export const positionals = {
  path: {
    describe: 'Sources, then the target; <host>:<path> is on a VM, relative to the home directory',
    array: true,
  },
}
export const options = {
  root: { type: 'boolean', describe: 'As root instead of the primary user' },
} as const
export const under = ['scp -r -F <LAB_HOME>/ssh_config <path..>']
export const examples: [string, string][] = [
  ['just copy notes.txt sorrow:', 'Into the home of the primary user'],
  ['just copy sorrow:/etc/os-release .', 'From a VM'],
  ['just copy --root sorrow:/var/lib/golden-generation torment:/tmp', 'From one VM to another'],
]

export async function run(args: Args): Promise<void> {
  const paths = [...(args['path'] as string[]), ...((args['--'] ?? []) as string[])]
  const to = paths.at(-1)!
  const from = paths.slice(0, -1)
  if (from.length === 0) {
    throw usageFailure(
      `Cannot copy \`${to}\`: there is nowhere to copy it to`,
      'just copy file sorrow:',
    )
  }
  if (!paths.some(hostIn)) {
    throw usageFailure(
      `Cannot copy to \`${to}\`: no path is on a VM`,
      'Write one as sorrow:/tmp/file',
    )
  }
  const there = paths.map((path) => scpPath(path, Boolean(args['root'])))
  const lacking = from.find((path) => !hostIn(path) && !existsSync(path))
  if (lacking !== undefined) throw usageFailure(`Cannot copy \`${lacking}\`: it does not exist`)
  const scp = spawnSync('scp', ['-r', '-3', ...sshArgs(), '--', ...there], {
    // scp shows its progress on a terminal
    stdio: ['ignore', 'inherit', 'pipe'],
  })
  const said = scp.stderr?.toString().trim() ?? ''
  if (scp.status !== 0) {
    // later lines only say that the copy failed
    const why =
      said.split('\n')[0] || scp.error?.message || `it exited with ${scp.status ?? scp.signal}`
    throw new Failure(`Cannot copy ${from.join(', ')} to \`${to}\`: ${why.replace(/^scp: /, '')}`)
  }
  process.stderr.write(`Copied ${from.join(', ')} to ${to}\n`)
}

/** As scp reads it: a path with a colon before any slash is on another machine. */
const hostIn = (path: string): string | undefined => /^([^/:]+):/.exec(path)?.[1]

function scpPath(path: string, root: boolean): string {
  const host = hostIn(path)
  if (host === undefined) return path
  const vm = runningVm(host, 'copy files of')
  return `${vm.host}${root ? '-root' : ''}${path.slice(host.length)}`
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })

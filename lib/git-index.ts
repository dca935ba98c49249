import { Failure } from './failure.ts'
import { run } from './run.ts'

/**
 * Makes git know of new files, without their text, so that a flake in the repository sees them.
 * Files that are tracked or ignored are left alone, and so are those in no repository.
 * @param directory where the paths begin
 * @returns the files that were marked, from `directory` on
 * @throws Failure when there is a repository and git does not answer
 */
export async function intendToAdd(directory: string, paths: string[]): Promise<string[]> {
  // without a path git would take them all
  if (paths.length === 0) return []
  const git = (...args: string[]) =>
    run('git', ['-C', directory, ...args, '--', ...paths], {
      allow: [127, 128],
      env: { LC_ALL: 'C' },
    })
  const { code, stdout, stderr } = await git('ls-files', '--others', '--exclude-standard', '-z')
  if (code === 127 || stderr.includes('not a git repository')) return []
  if (code === 128)
    throw new Failure(`Cannot ask git about \`${directory}\`: ${stderr.trim().split('\n')[0]}`)
  const untracked = stdout.split('\0').filter(Boolean)
  if (untracked.length > 0)
    await run('git', ['-C', directory, 'add', '--intent-to-add', '--', ...untracked])
  return untracked
}

import { Failure } from '../failure.ts'
import { pasted } from '../quote.ts'
import { run } from '../run.ts'

export interface Marked {
  /** Files that git was told of, from the directory on. */
  marked: string[]
  /** What a person has to do, when git did not let itself be told. */
  notes: string[]
}

/**
 * Makes git know of new files, without their text, so that a flake in the repository sees them.
 * Files that are tracked or ignored are left alone, and so are those in no repository.
 * @param directory where the paths begin
 * @param dryRun whether only to find the files
 */
export async function intendToAdd(
  directory: string,
  paths: string[],
  dryRun: boolean,
): Promise<Marked> {
  // without a path git would take them all
  if (paths.length === 0) return { marked: [], notes: [] }
  const git = (...args: string[]) =>
    run('git', ['-C', directory, ...args, '--', ...paths], {
      allow: [127, 128],
      env: { LC_ALL: 'C' },
    })
  try {
    const others = await git('ls-files', '--others', '--exclude-standard', '-z')
    if (others.code === 127 || others.stderr.includes('not a git repository'))
      return { marked: [], notes: [] }
    const marked = others.stdout.split('\0').filter(Boolean)
    const add = others.code === 0 && marked.length > 0 && !dryRun
    const added = add ? await git('add', '--intent-to-add') : others
    if (added.code === 0) return { marked, notes: [] }
    throw new Failure(added.stderr.trim().split('\n')[0] ?? '')
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const todo = pasted('git', '-C', directory, 'add', '--intent-to-add', ...paths)
    return { marked: [], notes: [`git was not told of the files (${error.message}): ${todo}`] }
  }
}

import { existsSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { Failure } from '../failure.ts'
import { allowing } from '../git-owner.ts'
import { pasted } from '../quote.ts'
import { run } from '../run.ts'

export interface Marked {
  /** Files marked as new in git, relative to the directory. */
  marked: string[]
  /** What the user must do if git refused, or if it ignores a Nix file or a given file. */
  notes: string[]
}

/**
 * Marks new files in git's index, without their text, so that a flake in the repository sees them.
 * Files that are tracked, ignored, or in no repository are left alone.
 * @param directory the paths are relative to it
 * @param dryRun only find the files, which may not exist yet
 */
export async function intendToAdd(
  directory: string,
  paths: string[],
  dryRun: boolean,
): Promise<Marked> {
  // without a path, git would take all files
  if (paths.length === 0) return { marked: [], notes: [] }
  const names = paths.map((path) => relative(directory, resolve(directory, path)))
  const git = (files: string[], ...args: string[]) =>
    run('git', ['-C', directory, ...args, '--', ...files], {
      allow: [1, 127, 128],
      env: { LC_ALL: 'C' },
    })
  const list = (...which: string[]) =>
    git(names, 'ls-files', '--others', ...which, '--exclude-standard', '-z')
  // git does not list missing files; a missing one will be marked if it is neither ignored nor tracked
  const yetToBe = async (files: string[]): Promise<{ marked: string[]; ignored: string[] }> => {
    if (files.length === 0) return { marked: [], ignored: [] }
    const { stdout } = await git(files, '-c', 'core.quotePath=false', 'check-ignore')
    const ignored = stdout.split('\n').filter(Boolean)
    const tracked = namesIn((await git(files, 'ls-files', '-z')).stdout)
    return { marked: files.filter((file) => ![...ignored, ...tracked].includes(file)), ignored }
  }
  // --sparse: add the files even outside a sparse checkout
  const add = ['add', '--sparse', '--intent-to-add']
  let said = ''
  try {
    const others = await list()
    if (others.code === 127 || others.stderr.includes('not a git repository'))
      return { marked: [], notes: [] }
    const absent = names.filter((name) => !existsSync(join(directory, name)))
    const yet = await yetToBe(dryRun ? absent : [])
    const marked = [...namesIn(others.stdout), ...yet.marked]
    const tell = others.code === 0 && marked.length > 0 && !dryRun
    // only those: git refuses all of them if one is ignored
    const told = tell ? await git(marked, ...add) : others
    said = told.stderr
    if (told.code !== 0) throw new Failure(said.trim().split('\n')[0] ?? '')
    const unmarked = [...namesIn((await list('--ignored')).stdout), ...yet.ignored]
    // in a given directory, report only Nix files: ignoring a key beside them may be intended
    const ignored = unmarked.filter((one) => one.endsWith('.nix') || names.includes(one))
    const force = pasted('git', '-C', directory, 'add', '--force', '--intent-to-add', ...ignored)
    const unseen = `git ignores ${ignored.join(', ')}, and a flake does not see it: ${force}`
    return { marked, notes: ignored.length > 0 ? [unseen] : [] }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const todo = pasted('git', '-C', directory, ...add, ...paths)
    const allow = allowing(said)
    const first = allow === undefined ? '' : `${allow} && `
    return {
      marked: [],
      notes: [`git could not mark the files (${error.message}): ${first}${todo}`],
    }
  }
}

const namesIn = (list: string): string[] => list.split('\0').filter(Boolean)

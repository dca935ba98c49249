import { existsSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { Failure } from '../failure.ts'
import { allowing } from '../git-owner.ts'
import { pasted } from '../quote.ts'
import { run } from '../run.ts'

export interface Marked {
  /** Files that git was told of, from the directory on. */
  marked: string[]
  /** What a person has to do, where git did not let itself be told, or ignores a Nix file, or one that was named. */
  notes: string[]
}

/**
 * Makes git know of new files, without their text, so that a flake in the repository sees them.
 * Files that are tracked or ignored are left alone, and so are those in no repository.
 * @param directory where the paths begin
 * @param dryRun whether only to find the files; they may yet have to be written
 */
export async function intendToAdd(
  directory: string,
  paths: string[],
  dryRun: boolean,
): Promise<Marked> {
  // without a path git would take them all
  if (paths.length === 0) return { marked: [], notes: [] }
  const names = paths.map((path) => relative(directory, resolve(directory, path)))
  const git = (files: string[], ...args: string[]) =>
    run('git', ['-C', directory, ...args, '--', ...files], {
      allow: [1, 127, 128],
      env: { LC_ALL: 'C' },
    })
  const list = (...which: string[]) =>
    git(names, 'ls-files', '--others', ...which, '--exclude-standard', '-z')
  // git lists no file that is not there; it would be told of one that it neither ignores nor still has
  const yetToBe = async (files: string[]): Promise<{ marked: string[]; ignored: string[] }> => {
    if (files.length === 0) return { marked: [], ignored: [] }
    const { stdout } = await git(files, '-c', 'core.quotePath=false', 'check-ignore')
    const ignored = stdout.split('\n').filter(Boolean)
    const tracked = namesIn((await git(files, 'ls-files', '-z')).stdout)
    return { marked: files.filter((file) => ![...ignored, ...tracked].includes(file)), ignored }
  }
  // a sparse checkout, too, is to have what was written
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
    // of those alone: git refuses them all for one that it ignores
    const told = tell ? await git(marked, ...add) : others
    said = told.stderr
    if (told.code !== 0) throw new Failure(said.trim().split('\n')[0] ?? '')
    const unmarked = [...namesIn((await list('--ignored')).stdout), ...yet.ignored]
    // of what is in a directory, the Nix files alone: a key beside them may well be ignored
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
      notes: [`git was not told of the files (${error.message}): ${first}${todo}`],
    }
  }
}

const namesIn = (list: string): string[] => list.split('\0').filter(Boolean)

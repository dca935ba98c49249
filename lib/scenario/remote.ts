import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../failure.ts'
import { run } from '../run.ts'
import { scratchDirectory } from '../scratch.ts'

/** Text by path; null removes a file, a function edits what is there. */
export type Changes = Record<string, string | null | ((text: string) => string)>

export interface CommitOptions {
  /** Default: the trunk. */
  branch?: string
  /** Parent of the new commit; default: the branch's. */
  parent?: string
  /** Tree that the changes are applied to; default: the parent's. */
  tree?: string
}

/** A bare repository on this machine. To a guest, a commit to it looks like a colleague's push. */
export interface Remote {
  dir: string
  /** Makes a commit and moves the branch to it, wherever it was. @returns its id */
  commit: (changes: Changes, message: string, options?: CommitOptions) => Promise<string>
  /** The commit of a branch, or undefined when there is no such branch. */
  head: (branch?: string) => Promise<string | undefined>
  /** Moves a branch to any commit, as a forced push does; null deletes it. */
  move: (branch: string, commit: string | null) => Promise<void>
  /** Makes a branch the one that a clone checks out. */
  choose: (branch: string) => Promise<void>
  /** A file as a commit has it; undefined when there is none. */
  read: (path: string, commit?: string) => Promise<string | undefined>
  /** Commits that were made here and not dropped by `move` or by another `parent`. */
  made: () => Promise<string[]>
  /** Whether a commit is or descends from another, also after a forced push; false for one that was never here. */
  follows: (commit: string, from: string) => Promise<boolean>
  /** Every commit that a branch reaches, the newest first. */
  commits: (branch?: string) => Promise<string[]>
  /**
   * Writes files of a work tree into the repository, as they are on the disk: symlinks, modes and all.
   * @param paths below `directory`; those that are gone are left out
   * @returns the id of their tree
   */
  take: (directory: string, paths: string[]) => Promise<string>
  /** Writes a commit's files to a `.tar.gz` with one top directory, like the downloads of a git server. */
  archive: (commit: string, file: string) => Promise<void>
}

/** Runs git untouched by the user's own settings, such as signing. */
export async function git(
  args: string[],
  options: { env?: Record<string, string>; input?: string; allow?: number[] } = {},
): Promise<string> {
  const env = { GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_NOSYSTEM: '1', ...options.env }
  const { stdout, code } = await run('git', args, { ...options, env })
  return code === 0 ? stdout : ''
}

/** Opens an existing bare repository. @param trunk the branch to use where none is named */
export function remote(dir: string, trunk = 'main'): Remote {
  const at = (args: string[], options: Parameters<typeof git>[1] = {}): Promise<string> =>
    git(['--git-dir', dir, ...args], options)
  const head: Remote['head'] = async (branch = trunk) =>
    (
      await at(['rev-parse', '--quiet', '--verify', `refs/heads/${branch}`], { allow: [1] })
    ).trim() || undefined
  const read: Remote['read'] = async (path, commit = trunk) => {
    const listed = await at(['ls-tree', '-z', commit, '--', path])
    return listed ? at(['cat-file', 'blob', `${commit}:${path}`]) : undefined
  }

  const commits: Remote['commits'] = async (branch) =>
    (await at(['rev-list', branch ?? '--all'])).split('\n').filter(Boolean)
  // commits that our own forced push drops do not count as lost
  let made = new Set<string>()
  const takenBack = async (): Promise<void> => {
    const reached = new Set(await commits())
    made = new Set([...made].filter((id) => reached.has(id)))
  }

  const commit: Remote['commit'] = async (changes, message, options = {}) => {
    const { branch = trunk } = options
    const parent = options.parent ?? (await head(branch))
    const scratch = scratchDirectory('commit')
    const env = indexIn(scratch)
    try {
      const from = options.tree ?? parent
      if (from) await at(['read-tree', from], { env })
      const changed = await Promise.all(
        Object.entries(changes).map(async ([path, change]) => {
          const before = typeof change === 'function' ? await read(path, parent) : undefined
          if (typeof change === 'function' && before === undefined) {
            throw new Failure(`Cannot edit \`${path}\` of \`${dir}\`: ${parent} has no such file`)
          }
          return [path, typeof change === 'function' ? change(before!) : change] as const
        }),
      )
      // with an empty input, git would wait
      if (changed.length > 0) await writeTree(at, scratch, changed)
      const tree = (await at(['write-tree'], { env })).trim()
      const count = parent ? Number(await at(['rev-list', '--count', parent])) : 0
      const on = parent ? ['-p', parent] : []
      const args = ['commit-tree', tree, ...on, '-m', message]
      const id = (await at(args, { env: author(count) })).trim()
      await at(['update-ref', `refs/heads/${branch}`, id])
      made.add(id)
      if (options.parent) await takenBack()
      return id
    } finally {
      rmSync(scratch, { recursive: true })
    }
  }

  return {
    dir,
    commit,
    head,
    read,
    move: async (branch, to) => {
      const ref = `refs/heads/${branch}`
      await at(to === null ? ['update-ref', '-d', ref] : ['update-ref', ref, to])
      await takenBack()
    },
    choose: async (branch) => void (await at(['symbolic-ref', 'HEAD', `refs/heads/${branch}`])),
    made: async () => [...made],
    follows: async (id, from) =>
      (await at(['merge-base', from, id], { allow: [1, 128] })).trim() === from,
    commits,
    archive: async (of, file) => void (await at(['archive', '--prefix=flake/', '-o', file, of])),
    take: async (directory, paths) => {
      const scratch = scratchDirectory('take')
      const env = indexIn(scratch)
      const update = ['update-index', '--add', '--remove', '-z', '--stdin']
      try {
        await at(['--work-tree', directory, ...update], { env, input: paths.join('\0') })
        return (await at(['write-tree'], { env })).trim()
      } finally {
        rmSync(scratch, { recursive: true })
      }
    },
  }
}

/** Environment that puts git's index into this directory. */
const indexIn = (scratch: string) => ({ GIT_INDEX_FILE: join(scratch, 'index') })

type Git = (args: string[], options?: Parameters<typeof git>[1]) => Promise<string>

/** Writes all files with one `hash-object`: a process for each of a hundred files would take seconds. */
async function writeTree(
  at: Git,
  scratch: string,
  changed: (readonly [string, string | null])[],
): Promise<void> {
  const entries: string[] = []
  const written = changed.filter((entry): entry is readonly [string, string] => entry[1] !== null)
  const paths = written.map(([, text], index) => {
    const path = join(scratch, `blob-${index}`)
    writeFileSync(path, text)
    return path
  })
  const ids = (
    await at(['hash-object', '-w', '--no-filters', '--stdin-paths'], {
      input: paths.map((path) => `${path}\n`).join(''),
    })
  ).split('\n')
  for (const [index, [path, text]] of written.entries()) {
    entries.push(`${text.startsWith('#!') ? '100755' : '100644'} ${ids[index]}\t${path}`)
  }
  const gone = changed
    .filter(([, text]) => text === null)
    .map(([path]) => `0 ${'0'.repeat(40)}\t${path}`)
  await at(['update-index', '--index-info'], {
    env: indexIn(scratch),
    input: [...entries, ...gone].map((line) => `${line}\n`).join(''),
  })
}

/** Fixed names and dates give a history the same ids on every machine, so that a snapshot's clone fits any world. */
const author = (count: number): Record<string, string> => {
  const date = `${1_790_000_000 + count * 60} +0000`
  return {
    GIT_AUTHOR_NAME: 'Lab',
    GIT_AUTHOR_EMAIL: 'lab@localhost',
    GIT_AUTHOR_DATE: date,
    GIT_COMMITTER_NAME: 'Lab',
    GIT_COMMITTER_EMAIL: 'lab@localhost',
    GIT_COMMITTER_DATE: date,
  }
}

import { existsSync, lstatSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { allowing } from '../git-owner.ts'
import { Failure, usage } from '../failure.ts'
import { flakeDirectory } from '../flake/directory.ts'
import { labSettings } from '../lab-settings.ts'
import { lock, locked } from '../lock.ts'
import { run } from '../run.ts'
import { scratchDirectory } from '../scratch.ts'
import { givenPath, labHome, project } from '../settings.ts'
import { repositories, serve } from './served.ts'

/** The directory of the lab's own remotes: every VM is subscribed to them, and `just publish` updates them. */
export const labRemotes = (): string => join(labHome(), 'srv', '.lab')

export const configRemote = (): string => join(labRemotes(), 'config.git')
export const dotfilesRemote = (): string => join(labRemotes(), 'dotfiles.git')

/**
 * Publishes the lab's flake. @throws Failure (usage) when its flake.nix is not at the top of a repository,
 * because a guest clones whole repositories
 */
export async function publishFlake(options: PublishOptions = {}): Promise<Published> {
  const flake = flakeDirectory()
  if ((await workTree(flake)) === 'part') {
    throw usage(
      `Cannot publish \`${flake}\`: its flake.nix is not at the top of the repository`,
      'A guest clones whole repositories: give the flake one of its own',
    )
  }
  return publish(configRemote(), flake, (await labSettings()).branch, options)
}

/** Publishes the dotfiles of LAB_DOTFILES, a chezmoi source directory; if it is not set, a small example. */
export async function publishDotfiles(options: PublishOptions = {}): Promise<Published> {
  const source = dotfilesSource()
  return publish(dotfilesRemote(), source, (await labSettings()).branch, options)
}

/** The chezmoi source directory that is published. @throws Failure (usage) */
export function dotfilesSource(): string {
  const given = process.env['LAB_DOTFILES']
  if (!given) return join(project, 'nix/lab/dotfiles')
  const directory = givenPath(given)
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return directory
  throw usage(`Cannot find the directory \`${directory}\` of LAB_DOTFILES`)
}

/** Serves a guest the lab's own remotes. @returns false when they do not exist yet */
export function serveLab(host: string): boolean {
  if (!repositories.every((name) => existsSync(join(labRemotes(), name)))) return false
  serve(labRemotes(), host)
  return true
}

/** The commit of a remote's branch; undefined when nothing was published yet. */
export async function publishedCommit(bare: string, branch: string): Promise<string | undefined> {
  const ask = ['--git-dir', bare, 'rev-parse', '--quiet', '--verify', `refs/heads/${branch}`]
  return (await run('git', ask, { allow: [1, 128] })).stdout.trim() || undefined
}

export interface Published {
  commit: string
  /** False when the remote's branch was at this commit already. */
  moved: boolean
  /** Description of the commit for messages. */
  what: string
}

export interface PublishOptions {
  /** Publishes the files as they are on the disk, committed or not. A directory outside git is always published so. */
  dirty?: boolean
  /** Moves the branch even to a commit that does not descend from it, like a forced push. */
  force?: boolean
}

/**
 * Moves a branch of a bare repository to the contents of a directory, which is only read. Files that are
 * not in its history get a commit by the lab. Later commits are merged onto that commit, so that a guest
 * that has upgraded to it does not see a rewritten history.
 * @param source a git work tree, or any directory
 * @throws Failure when the branch holds commits that the source does not have, or git cannot read it
 */
export async function publish(
  bare: string,
  source: string,
  branch: string,
  options: PublishOptions = {},
): Promise<Published> {
  privateDirectory(labHome())
  mkdirSync(labRemotes(), { recursive: true, mode: 0o700 })
  const take = () => lock(join(labRemotes(), 'lock'), `publish \`${source}\``, { wait: 60 })
  return locked([take], async () =>
    publishTo(await bareRepository(bare, branch), source, branch, options),
  )
}

async function publishTo(
  at: Git,
  source: string,
  branch: string,
  { dirty = false, force = false }: PublishOptions,
): Promise<Published> {
  const rev = async (name: string): Promise<string | undefined> =>
    (await at(['rev-parse', '--quiet', '--verify', name], { allow: [1, 128] })) || undefined
  const descends = async (from: string, to: string): Promise<boolean> =>
    from === to || (await at(['merge-base', '--is-ancestor', from, to], { allow: [1] }, true)) === 0

  const known = await workTree(source)
  const head = known === 'top' ? await takeHead(at, source) : undefined
  const tree = known === 'top' && !dirty && !head ? await takeTree(at, source) : undefined
  const files =
    head && !dirty
      ? await rev(`${head}^{tree}`)
      : (tree ?? (await takeFiles(at, source, known !== 'none')))
  const tip = await rev(`refs/heads/${branch}`)
  const [lastHead, lastTip] = [await rev('refs/lab/head'), await rev('refs/lab/tip')]

  const move = async (to: string, what: string): Promise<Published> => {
    await at(['update-ref', `refs/heads/${branch}`, to, tip ?? ''])
    await at(['update-ref', 'refs/lab/tip', to])
    if (head) await at(['update-ref', 'refs/lab/head', head])
    return { commit: to, moved: to !== tip, what }
  }
  const commit = (parents: (string | undefined)[], what: string): Promise<string> =>
    at([
      'commit-tree',
      files!,
      ...[...new Set(parents)].flatMap((parent) => (parent ? ['-p', parent] : [])),
      ...['-m', what],
    ])

  const asIs = head !== undefined && files === (await rev(`${head}^{tree}`))
  const named = tree ? 'Files as they were committed' : 'Files as they are on the disk'
  const what = asIs ? `commit ${head.slice(0, 12)}` : `the ${named.toLowerCase()}`
  if (head && (!tip || force || (await descends(tip, head)))) {
    return move(asIs ? head : await commit([head], named), what)
  }
  // beyond the last published commit the remote then has only commits that the lab made from files
  const ours = tip !== undefined && tip === lastTip
  if (head ? !(ours && lastHead && (await descends(lastHead, head))) : tip && !ours && !force) {
    throw new Failure(`Cannot publish \`${source}\`: its history does not contain ${tip}`, {
      hint: `The lab's remote has commits that are not here, or history was rewritten; --force replaces them, and the VMs will refuse it as \`diverged\``,
    })
  }
  if (tip && files === (await rev(`${tip}^{tree}`)) && (!head || (await descends(head, tip)))) {
    return move(tip, what)
  }
  return move(await commit([tip, head], asIs ? 'Merge what was committed' : named), what)
}

/** Whether a directory is the top of a git work tree, a part of one, or neither. @throws Failure with git's message */
async function workTree(source: string): Promise<'top' | 'part' | 'none'> {
  const { stdout, stderr, code } = await run('git', ['-C', source, 'rev-parse', '--show-prefix'], {
    allow: [128],
    env: { LC_ALL: 'C' },
  })
  if (code === 0) return stdout.trim() === '' ? 'top' : 'part'
  if (stderr.includes('not a git repository')) return 'none'
  const hint = allowing(stderr)
  const why = hint === undefined ? stderr.trim().split('\n')[0] : 'it belongs to another user'
  throw new Failure(`Cannot read \`${source}\`: ${why}`, { hint })
}

/** Fetches the source's HEAD; undefined before its first commit, and for a shallow clone. */
async function takeHead(at: Git, source: string): Promise<string | undefined> {
  const ask = async (...args: string[]): Promise<string> =>
    (await run('git', ['-C', source, 'rev-parse', ...args], { allow: [1, 128] })).stdout.trim()
  const head = await ask('--quiet', '--verify', 'HEAD')
  // a shallow clone lacks history, so it cannot be published with its history
  if (!head || (await ask('--is-shallow-repository')) === 'true') return undefined
  await at(['fetch', '--quiet', '--no-tags', '--no-write-fetch-head', source, '+HEAD:refs/lab/new'])
  return head
}

/** Copies the files of the source's HEAD, without history. @returns the tree; undefined before its first commit */
async function takeTree(at: Git, source: string): Promise<string | undefined> {
  const ask = ['-C', source, 'rev-parse', '--quiet', '--verify', 'HEAD^{tree}']
  const tree = (await run('git', ask, { allow: [1, 128] })).stdout.trim()
  if (!tree) return undefined
  const script = `set -o pipefail; git -C "$1" rev-list --objects "$2" |
    git -C "$1" pack-objects --quiet --stdout | git --git-dir "$3" unpack-objects -q`
  const bare = await at(['rev-parse', '--absolute-git-dir'])
  await run('bash', ['-c', script, 'bash', source, tree, bare])
  return tree
}

/** Writes a directory's files into the repository as a tree: those that git tracks or would add. */
async function takeFiles(at: Git, source: string, known: boolean): Promise<string> {
  const scratch = scratchDirectory('publish')
  const env = { GIT_INDEX_FILE: join(scratch, 'index') }
  const work = ['--work-tree', source]
  try {
    if (known) {
      const list = async (...which: string[]): Promise<string[]> => {
        const { stdout } = await run('git', ['-C', source, 'ls-files', '-z', ...which])
        return stdout.split('\0').filter(Boolean)
      }
      const paths = await list('--cached', '--others', '--exclude-standard')
      refuseUnreadable(source, paths)
      await at([...work, 'update-index', '--add', '--remove', '-z', '--stdin'], {
        env,
        input: paths.filter((path) => !isReplaced(join(source, path))).join('\0'),
      })
      // a submodule that was not fetched counts as unchanged; its directory does not show the commit, so copy the entry
      const unfetched = /^160000 \S+ 0\t/
      const links = (await list('--stage')).filter(
        (line) => unfetched.test(line) && isReplaced(join(source, line.replace(unfetched, ''))),
      )
      if (links.length > 0)
        await at(['update-index', '-z', '--index-info'], { env, input: links.join('\0') })
    } else await at([...work, 'add', '--all', '.'], { env })
    return await at([...work, 'write-tree'], { env })
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

/** @throws Failure for a file whose name is not UTF-8: it is not found by its name, and would be left out silently */
function refuseUnreadable(source: string, paths: string[]): void {
  const odd = paths.find(
    (path) => path.includes('\uFFFD') && !lstatSync(join(source, path), { throwIfNoEntry: false }),
  )
  if (odd === undefined) return
  throw new Failure(`Cannot publish \`${source}\`: the name of its file \`${odd}\` is not UTF-8`, {
    hint: 'jj, which the VMs upgrade with, rejects such a file: rename it, or let git ignore it',
  })
}

/**
 * Whether a path that git lists is a directory without a repository: one that has replaced a tracked file, whose own
 * files are listed separately, or that of a submodule that was not fetched.
 */
const isReplaced = (path: string): boolean =>
  existsSync(path) && lstatSync(path).isDirectory() && !existsSync(join(path, '.git'))

interface Git {
  (args: string[], options?: GitOptions): Promise<string>
  (args: string[], options: GitOptions, code: true): Promise<number>
}
interface GitOptions {
  env?: Record<string, string>
  input?: string
  allow?: number[]
}

/** Makes a bare repository unless it exists. @returns a function that runs git in it */
async function bareRepository(dir: string, branch: string): Promise<Git> {
  const author = { NAME: 'Lab', EMAIL: 'lab@localhost' }
  const identity = Object.entries(author).flatMap(([key, value]) => [
    [`GIT_AUTHOR_${key}`, value],
    [`GIT_COMMITTER_${key}`, value],
  ])
  const at = async (args: string[], options: GitOptions = {}, wantsCode = false) => {
    const env = { ...Object.fromEntries(identity), LC_ALL: 'C', ...options.env }
    const { stdout, code } = await run('git', ['--git-dir', dir, ...args], { ...options, env })
    return wantsCode ? code : stdout.trim()
  }
  if (!existsSync(join(dir, 'HEAD'))) {
    const beside = `${dir}.new`
    rmSync(beside, { recursive: true, force: true })
    // overrides the user's defaults: jj cannot read SHA-256, and `just watch` watches the files of refs
    const env = { GIT_DEFAULT_HASH: 'sha1', GIT_DEFAULT_REF_FORMAT: 'files' }
    await run('git', ['init', '--quiet', '--bare', beside], { env })
    await run('mv', ['-T', beside, dir])
  }
  dropLeftLocks(dir)
  // the branch comes from lab.toml and may have changed
  await at(['symbolic-ref', 'HEAD', `refs/heads/${branch}`])
  return at as Git
}

/**
 * Removes git's lock files on refs that a killed process left. Git holds such a lock only while it writes a line, so
 * one that is a minute old is stale, even in a repository that people push to.
 */
function dropLeftLocks(dir: string): void {
  const refs = readdirSync(join(dir, 'refs'), { recursive: true, encoding: 'utf8' })
  for (const name of [...readdirSync(dir), ...refs.map((ref) => join('refs', ref))]) {
    if (!name.endsWith('.lock')) continue
    const path = join(dir, name)
    const since = lstatSync(path, { throwIfNoEntry: false })?.mtimeMs
    if (since !== undefined && Date.now() - since > 60_000) rmSync(path, { force: true })
  }
}

import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import {
  configRemote,
  publish,
  publishedCommit,
  type PublishOptions,
} from '../../../lib/vm/remotes.ts'
import { pushedAfter } from '../../../tasks/watch.ts'

let dir: string
let flake: string
const env = { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null', LC_ALL: 'C' }
const git = (at: string, ...args: string[]): string =>
  execFileSync('git', ['-C', at, ...args], { env, encoding: 'utf8' }).trim()
const commit = (name: string, text: string): string => {
  writeFileSync(join(flake, name), text)
  git(flake, 'add', '--all')
  git(flake, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', `${name} ${text}`)
  return git(flake, 'rev-parse', 'HEAD')
}
const send = (options?: PublishOptions) => publish(configRemote(), flake, 'main', options)
const clone = (): string => {
  const to = mkdtempSync(join(dir, 'clone-'))
  git(dir, 'clone', '-q', configRemote(), to)
  return to
}
/** Whether what a guest had is part of what it would fetch now. */
const follows = (before: string): boolean => {
  try {
    git(configRemote(), 'merge-base', '--is-ancestor', before, 'main')
    return true
  } catch {
    return false
  }
}

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'remotes-'))
  process.env['LAB_HOME'] = join(dir, 'home')
  flake = join(dir, "my flake's")
  mkdirSync(flake)
  git(flake, 'init', '-q', '-b', 'work')
})
afterEach(() => {
  delete process.env['LAB_HOME']
  rmSync(dir, { recursive: true })
})

test('publishing works for a user whose git creates sha256 repositories by default', async () => {
  const first = commit('flake.nix', '{ }')
  vi.stubEnv('GIT_DEFAULT_HASH', 'sha256')
  try {
    expect(await send()).toMatchObject({ commit: first, moved: true })
  } finally {
    vi.unstubAllEnvs()
  }
})

test('a submodule that was not fetched stays in the files published with --dirty', async () => {
  commit('flake.nix', '{ }')
  const other = git(flake, 'rev-parse', 'HEAD')
  git(flake, 'update-index', '--add', '--cacheinfo', `160000,${other},part`)
  mkdirSync(join(flake, 'part'))
  git(flake, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-qm', 'with a part')
  writeFileSync(join(flake, 'flake.nix'), '{ a = 1; }')
  await send({ dirty: true })
  expect(git(configRemote(), 'ls-tree', 'main', 'part')).toContain(other)
  // a submodule whose directory was deleted is gone, as in git
  rmSync(join(flake, 'part'), { recursive: true })
  await send({ dirty: true })
  expect(git(configRemote(), 'ls-tree', 'main', 'part')).toBe('')
})

test('a file name that is not UTF-8 is refused, not left out silently', async () => {
  commit('flake.nix', '{ }')
  writeFileSync(Buffer.from(`${flake}/b\xff`, 'latin1'), 'x')
  await expect(send({ dirty: true })).rejects.toMatchObject({
    message: expect.stringContaining('is not UTF-8'),
  })
  rmSync(Buffer.from(`${flake}/b\xff`, 'latin1'))
  writeFileSync(join(flake, '\uFFFD\n'), 'x')
  await send({ dirty: true })
  expect(git(configRemote(), 'ls-tree', '-z', '--name-only', 'main')).toContain('\uFFFD\n')
})

test('the checked-out commit is published unchanged, with its history', async () => {
  const first = commit('flake.nix', '{ }')
  const second = commit('flake.nix', '{ a = 1; }')
  expect(await send()).toMatchObject({ commit: second, moved: true })
  expect(git(clone(), 'log', '--format=%H')).toBe(`${second}\n${first}`)
  expect(await send()).toMatchObject({ commit: second, moved: false })
  // nothing was written into the source
  expect(git(flake, 'status', '--porcelain')).toBe('')
  expect(git(flake, 'for-each-ref', '--format=%(refname)')).toBe('refs/heads/work')
})

test('--dirty publishes changed, new and deleted files, and none that git ignores', async () => {
  commit('flake.nix', '{ }')
  commit('gone.nix', '')
  writeFileSync(join(flake, '.gitignore'), 'result\n')
  writeFileSync(join(flake, 'result'), '')
  writeFileSync(join(flake, 'new é\n.nix'), 'new', { mode: 0o755 })
  writeFileSync(join(flake, 'flake.nix'), '{ b = 2; }')
  rmSync(join(flake, 'gone.nix'))
  const index = statSync(join(flake, '.git/index')).mtimeMs
  await send({ dirty: true })
  const there = clone()
  expect(git(there, 'ls-files', '-z').split('\0').filter(Boolean)).toEqual([
    '.gitignore',
    'flake.nix',
    'new é\n.nix',
  ])
  expect(readFileSync(join(there, 'flake.nix'), 'utf8')).toBe('{ b = 2; }')
  expect(statSync(join(there, 'new é\n.nix')).mode & 0o100).toBe(0o100)
  expect(statSync(join(flake, '.git/index')).mtimeMs).toBe(index)
})

test('--dirty publishes a directory that replaced a file, empty or not', async () => {
  commit('flake.nix', '{ }')
  for (const name of ['beta', 'empty']) commit(name, '{ }')
  for (const name of ['beta', 'empty']) {
    rmSync(join(flake, name))
    mkdirSync(join(flake, name))
  }
  writeFileSync(join(flake, 'beta/default.nix'), '{ }')
  await send({ dirty: true })
  expect(git(clone(), 'ls-files')).toBe('beta/default.nix\nflake.nix')
})

test('--dirty publishes a file that replaced a directory', async () => {
  mkdirSync(join(flake, 'beta'))
  commit('beta/default.nix', '{ }')
  rmSync(join(flake, 'beta'), { recursive: true })
  writeFileSync(join(flake, 'beta'), '{ }')
  await send({ dirty: true })
  expect(git(clone(), 'ls-files')).toBe('beta')
})

test('--dirty publishes a nested repository as git tracks it', async () => {
  commit('flake.nix', '{ }')
  git(flake, 'init', '-q', 'inner')
  git(
    join(flake, 'inner'),
    '-c',
    'user.name=a',
    '-c',
    'user.email=a@b',
    'commit',
    '-qm',
    'a',
    '--allow-empty',
  )
  git(flake, 'add', 'inner')
  await send({ dirty: true })
  expect(git(configRemote(), 'ls-tree', 'main', 'inner')).toMatch(/^160000 commit /)
})

test('alternating files and commits form one history, which no guest sees as rewritten', async () => {
  commit('flake.nix', '1')
  let before = (await send()).commit
  for (const step of [
    'dirty 2',
    'dirty 3',
    'commit 4',
    'commit 5',
    'dirty 6',
    'commit 6',
    'commit 7',
  ]) {
    const [how, text] = step.split(' ') as [string, string]
    if (how === 'commit') commit('flake.nix', text)
    else writeFileSync(join(flake, 'flake.nix'), text)
    const { commit: now, moved } = await send({ dirty: how === 'dirty' })
    expect([step, follows(before)]).toEqual([step, true])
    expect(git(configRemote(), 'show', 'main:flake.nix')).toBe(text)
    // a commit of what was already published changes no files
    if (step !== 'commit 6') expect([step, moved]).toEqual([step, true])
    before = now
  }
  expect(git(configRemote(), 'log', '--format=%s', 'main')).toContain('flake.nix 7')
})

test('a rewritten history is refused without --force, and the remote stays unchanged', async () => {
  commit('flake.nix', '1')
  const { commit: before } = await send()
  git(flake, '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '--amend', '-qm', 'other')
  await expect(send()).rejects.toMatchObject({
    message: expect.stringContaining('its history does not contain'),
  })
  await expect(send({ dirty: true })).rejects.toMatchObject({
    message: expect.stringContaining('Cannot publish'),
  })
  expect(await publishedCommit(configRemote(), 'main')).toBe(before)
  expect((await send({ force: true })).commit).toBe(git(flake, 'rev-parse', 'HEAD'))
})

test('commits that a user pushed to the remote are not lost', async () => {
  commit('flake.nix', '1')
  await send()
  const there = clone()
  writeFileSync(join(there, 'theirs'), 'x')
  git(there, 'add', '--all')
  git(there, '-c', 'user.name=t', '-c', 'user.email=t@t', 'commit', '-qm', 'theirs')
  git(there, 'push', '-q', 'origin', 'HEAD:main')
  commit('flake.nix', '2')
  await expect(send()).rejects.toMatchObject({ message: expect.stringContaining('Cannot publish') })
  expect(git(configRemote(), 'show', 'main:theirs')).toBe('x')
  // once it is merged here, publishing works again
  const own = ['-c', 'user.name=a', '-c', 'user.email=a@b']
  git(flake, ...own, 'pull', '-q', '--no-rebase', '--no-edit', there, 'main')
  expect(await send()).toMatchObject({ moved: true })
  expect(git(configRemote(), 'show', 'main:flake.nix')).toBe('2')
})

test('a shallow clone is published as a complete repository that can be cloned', async () => {
  commit('flake.nix', '1')
  commit('flake.nix', '2')
  const shallow = join(dir, 'shallow')
  git(dir, 'clone', '-q', '--depth=1', `file://${flake}`, shallow)
  flake = shallow
  await send()
  expect(readFileSync(join(clone(), 'flake.nix'), 'utf8')).toBe('2')
  expect(git(configRemote(), 'rev-parse', '--is-shallow-repository')).toBe('false')
  // uncommitted changes stay here nevertheless
  writeFileSync(join(flake, 'flake.nix'), '3')
  expect(await send()).toMatchObject({ moved: false, what: 'the files as they were committed' })
  await send({ dirty: true })
  expect(git(configRemote(), 'show', 'main:flake.nix')).toBe('3')
})

test('a directory that is not a git repository is published with its files', async () => {
  rmSync(join(flake, '.git'), { recursive: true })
  writeFileSync(join(flake, 'dot_a'), '1')
  await send()
  writeFileSync(join(flake, 'dot_a'), '2')
  const { commit: second } = await send()
  expect(readFileSync(join(clone(), 'dot_a'), 'utf8')).toBe('2')
  expect(git(configRemote(), 'rev-list', '--count', second)).toBe('2')
  expect((await send()).moved).toBe(false)
})

test('a push is noticed even if git has packed the refs and removed their directory', async () => {
  const first = commit('flake.nix', '{ }')
  await publish(configRemote(), flake, 'team/main')
  git(configRemote(), 'pack-refs', '--all')
  const pushed = pushedAfter(first, 'team/main')
  const second = commit('flake.nix', '{ a = 1; }')
  await publish(configRemote(), flake, 'team/main')
  expect(await pushed).toBe(second)
})

test('old locks of a killed git do not block publishing, a recent one does', async () => {
  commit('flake.nix', '{ }')
  await send()
  const second = commit('flake.nix', '{ } # 2')
  const locks = ['HEAD.lock', 'refs/heads/main.lock', 'refs/lab/tip.lock']
  const left = new Date(Date.now() - 120_000)
  for (const name of locks) {
    writeFileSync(join(configRemote(), name), '')
    utimesSync(join(configRemote(), name), left, left)
  }
  expect(await send()).toMatchObject({ commit: second, moved: true })
  writeFileSync(join(configRemote(), 'HEAD.lock'), '')
  await expect(send()).rejects.toMatchObject({
    detail: { evidence: expect.stringContaining('HEAD.lock') },
  })
})

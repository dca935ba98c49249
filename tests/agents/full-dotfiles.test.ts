/** No edit of a dotfile is lost when calls fail as on a full disk, or to a kill at one. sweep.ts tries all calls. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Dotfiles, makeDotfiles, type SyncStatus } from './dotfiles.ts'
import { type Failing, missingForWrites, runWithFailingCalls, type Write } from './full.ts'
import { makeRoot, missingForRoot, type ScratchRoot } from './root.ts'
import { called, cannotRemoveStatus, failings, noSweep, note, swept } from './sweep.ts'

const missing = (await missingForRoot()) ?? (await missingForWrites())
let root: ScratchRoot
let remote: string
let base: string
beforeAll(async () => {
  if (missing) return
  root = await makeRoot()
  const both: Dotfiles = await makeDotfiles(root, { '.profile': 'one\n', '.vimrc': 'set one\n' })
  remote = both.remote
  base = both.sorrow.home.replace(/\/sorrow$/, '')
  await both.torment.sh(`echo two >>.vimrc; echo new >.new; chezmoi add .new
    printf '#!/bin/sh\ngrep -v added; echo added\n' >.local/share/chezmoi/modify_dot_cfg`)
  await both.torment.sync()
  await both.sorrow.sh('echo mine >>.profile; echo own >.cfg')
})
beforeEach((context) => {
  if (missing) context.skip(missing)
})
afterAll(() => root?.remove())

async function inCopy<T>(body: (copy: ScratchRoot) => Promise<T>): Promise<T> {
  const copy = await root.copy()
  try {
    return await body(copy)
  } finally {
    await copy.remove()
  }
}

async function sync(
  copy: ScratchRoot,
  host: string,
  failing: Failing = { first: 1, times: 0 },
): Promise<{ code: number; status: Partial<SyncStatus>; said: string; writes: Write[] }> {
  const home = `${base}/${host}`
  const env = { HOME: home, CHEZMOI_HOST: host, CHEZMOI_REPO_URL: remote, CHEZMOI_STATE: '' }
  const command = ['bash', '-euo', 'pipefail', '/tmp/chezmoi-sync.sh']
  const { ran, writes: seen } = await runWithFailingCalls(copy, command, failing, {
    user: 'rain',
    env,
  })
  const text = await copy.sh(
    `cat ${home}/.local/state/chezmoi-sync/status.json 2>/dev/null || echo '{}'`,
  )
  const status = JSON.parse(text) as Partial<SyncStatus>
  return { code: ran.code, status, said: ran.stdout + ran.stderr, writes: seen }
}

const allThere = `sorrow one mine set one two new own added
torment one mine set one two new added
kept own`

/** @returns what is wrong after a run with failing calls, some changes in between, and the next runs */
async function withFailing(
  failing: Failing,
  meanwhile: (copy: ScratchRoot) => Promise<unknown> = async () => {},
): Promise<string[]> {
  return inCopy(async (copy) => {
    const wrong: string[] = []
    const good = ['synced', 'up-to-date']
    const at = await sync(copy, 'sorrow', failing)
    const failed = at.writes.find((write) => write.failed)
    if (!failed) return ['no such call']
    const { outcome, reason, phase } = at.status
    // a killed run leaves its status unchanged
    const judged = at.code !== 0 && failing.error !== 'SIGKILL' && !cannotRemoveStatus(at.writes)
    if (judged && (outcome === null || good.includes(outcome ?? ''))) {
      wrong.push(`its status does not tell of the failure: ${at.code} ${outcome}`)
    }
    const edit = await copy.sh(`cat ${base}/sorrow/.profile`)
    if (edit !== 'one\nmine') wrong.push(`the edit is gone at once: ${edit}`)
    if (outcome === 'conflict') wrong.push(`takes it for a conflict: ${reason}`)
    await meanwhile(copy)
    let next = await sync(copy, 'sorrow')
    if (!good.includes(next.status.outcome ?? '')) next = await sync(copy, 'sorrow')
    if (!good.includes(next.status.outcome ?? '')) wrong.push(`the next runs end in ${next.said}`)
    await sync(copy, 'torment')
    const files = await copy.sh(`cd ${base}
      for host in sorrow torment; do echo $host $(cat $host/{.profile,.vimrc,.new,.cfg} 2>&1); done
      echo kept $(cat sorrow/.local/state/chezmoi-sync/kept/2*/.cfg 2>&1)
      [ ! -e sorrow/.hand ] || cmp sorrow/.hand torment/.hand 2>&1 || true`)
    if (files !== allThere) wrong.push(`the files are: ${files}`)
    const ends = [at.code, outcome, reason].join(' ')
    const then = [next.code, next.status.outcome, next.status.reason].join(' ')
    note(called(failing, failed), phase ?? '', ends, then, wrong.join('; '))
    return wrong
  })
}

const places = {
  'the status': 'commit bash openat .*/status.json.new$',
  'the operations of jj': 'rebase jj openat .*/op_heads/',
  'a file of the source': 'rebase jj write .*/dot_vimrc$',
  'the next file of the source': 'rebase jj openat .*/dot_new$',
  'jj’s word of the source': 'rebase jj renameat .*/working_copy/checkout$',
  'HEAD of the source': 'rebase jj renameat .*/.git/HEAD$',
  'the index of the source': 'rebase jj openat .*/.git/index.lock$',
  'the commit': 'commit jj openat .*/op_heads/',
  'the bookmark': 'push jj .*/refs/heads/main',
  'the remote': 'push git.* .*/dotfiles.git/',
  'the target': 'apply chezmoi .*/sorrow/',
  'chezmoi’s state': 'apply chezmoi .*/chezmoistate.boltdb',
  'what is put aside': 'apply cp .*/kept/',
}
test.each(Object.entries(places))('Writing fails at %s: the next run syncs', async (_, first) => {
  expect(await withFailing({ first, times: 1e9 })).toEqual([])
})

const killedAt = {
  'before jj’s operation is written': places['the operations of jj'],
  'in the middle of the checkout': places['a file of the source'],
  'after the checkout': places['jj’s word of the source'],
  'in the middle of a commit': places['the commit'],
}
test.each(Object.entries(killedAt))('Killed %s: the next run syncs', async (_, first) => {
  expect(await withFailing({ first, times: 1, error: 'SIGKILL' })).toEqual([])
})

const cutAt = Object.entries({
  ...killedAt,
  'as HEAD follows': places['HEAD of the source'],
  'as a commit moves HEAD': 'commit jj renameat .*/.git/HEAD$',
  // what runs there is a check before the commit, which is not a step
}).filter(([at]) => at !== 'in the middle of a commit')
test.each(cutAt)(
  'A power cut %s leaves new files of jj without content: the next run syncs',
  async (_, first) => {
    // git syncs what it has fetched; what jj has written since is only in the page cache
    const wrong = await withFailing({ first, times: 1, error: 'SIGKILL' }, async (copy) => {
      const emptied = await copy.sh(
        `cd ${base}/sorrow/.local/share/chezmoi/.git
        find objects refs/jj/keep -type f -newer ${base}/sorrow/.local/state/chezmoi-sync/step -print0 |
          while IFS= read -rd '' file; do chmod u+w "$file"; : >"$file"; echo "$file"; done`,
        { user: 'rain' },
      )
      expect(emptied).not.toBe('')
    })
    expect(wrong).toEqual([])
  },
)

test('Killed while it checks out the trunk into an empty source: no other host loses files', async () => {
  await inCopy(async (copy) => {
    const home = `${base}/rapture`
    const source = `${home}/.local/share/chezmoi`
    await copy.sh(`mkdir -p ${source}; cd ${source}; HOME=${home} jj git init --colocate .`, {
      user: 'rain',
    })
    const trunk = `git -C ${remote} rev-parse main`
    const before = await copy.sh(trunk, { user: 'rain' })
    const first = places['the operations of jj']
    const { code } = await sync(copy, 'rapture', { first, times: 1, error: 'SIGKILL' })
    expect(code).toBe(137)
    const { status } = await sync(copy, 'rapture')
    expect(status).toMatchObject({ outcome: 'synced' })
    expect(await copy.sh(trunk, { user: 'rain' })).toBe(before)
    expect(await copy.sh(`cat ${home}/.vimrc`)).toBe('set one\ntwo')
  })
})

test('Showing conflicts after a kill does not interfere with the next run’s recovery', async () => {
  const wrong = await withFailing(
    { first: places['the operations of jj'], times: 1, error: 'SIGKILL' },
    (copy) =>
      copy.sh('bash -euo pipefail /tmp/chezmoi-show-conflicts.sh', {
        user: 'rain',
        env: { HOME: `${base}/sorrow`, CHEZMOI_HOST: 'sorrow' },
      }),
  )
  expect(wrong).toEqual([])
})

/** Calls around the locking of HEAD for a step of jj. */
const aroundHead = {
  'before HEAD is locked': 'rebase bash openat .*/.git/HEAD.lock$',
  'as HEAD follows': places['HEAD of the source'],
  'when HEAD has followed': 'rebase jj .*/refs/heads/head-follows',
}
const look = 'jj status || jj workspace update-stale'
const commit = 'jj commit -m "by hand" || { jj workspace update-stale; jj commit -m "by hand"; }'
const edit = `echo 'by hand' >dot_hand; ${look}; jj status`
const atOperation = places['the operations of jj']
test.each([
  ...Object.entries({ ...killedAt, ...aroundHead }).map((at) => [look, ...at] as const),
  ...[commit, edit].flatMap((script) => [
    [script, 'before jj’s operation is written', atOperation] as const,
    [script, 'as HEAD follows', aroundHead['as HEAD follows']] as const,
  ]),
])('The user’s own `%s` after a kill %s breaks nothing', async (script, _, first) => {
  const wrong = await withFailing({ first, times: 1, error: 'SIGKILL' }, (copy) =>
    copy.sh(`cd ${base}/sorrow/.local/share/chezmoi; ${script}`, {
      user: 'rain',
      env: { HOME: `${base}/sorrow`, JJ_USER: 'rain', JJ_EMAIL: 'rain@sorrow' },
    }),
  )
  expect(wrong).toEqual([])
})

test.each(['', '\\0\\0\\0', 'nothing\\nof\\nuse\\n', 'abcdef\\nabcdef\\nabcdef\\n'])(
  'A record of a step that holds `%s` locks no host out',
  async (text) => {
    await inCopy(async (copy) => {
      const step = `${base}/sorrow/.local/state/chezmoi-sync/step`
      await copy.sh(`printf '${text}' >${step}`, { user: 'rain' })
      expect((await sync(copy, 'sorrow')).status).toMatchObject({ outcome: 'synced' })
      expect(await copy.sh(`ls ${step} 2>&1 || true`)).toMatch('No such file')
    })
  },
)

test('A git lock that could not even be removed is gone after the next run', async () => {
  const failing = { first: 'push jj renameat .*/.git/index$', times: 1e9, error: 'EIO' }
  expect(await withFailing(failing)).toEqual([])
})

test('An unexpected end is reported with the command that was running', async () => {
  const { code, status } = await inCopy((copy) =>
    sync(copy, 'sorrow', { first: 'capture bash openat .*/names$', times: 1 }),
  )
  expect([code, status.outcome]).toEqual([1, 'failed'])
  expect(status.reason).toMatch(/^Ended unexpectedly in phase capture, at `printf [^`\n]+`$/)
})

test(
  'The next run syncs after each system call has failed, alone or with all later ones',
  { timeout: 14_400_000 },
  async (context) => {
    const none = noSweep('tests/agents/full-dotfiles.test.ts')
    context.skip(none !== undefined, none)
    const { writes } = await inCopy((copy) => sync(copy, 'sorrow', { first: 1, times: 0 }))
    let wrong = 0
    for (const failing of swept(failings(writes))) {
      if ((await withFailing(failing)).length > 0) wrong++
    }
    expect(wrong).toBe(0)
  },
)

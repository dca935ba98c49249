/** A full disk loses nothing and locks no host out. A sample of levels and calls; sweep.ts runs all of them. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import {
  type Failing,
  filesystems,
  type Left,
  makeFullWorld,
  missingForWrites,
  notWhole,
  type Room,
  upgradeWithFailingCalls,
  upgradeWithRoom,
  type Write,
} from './full.ts'
import { missingForRoot } from './root.ts'
import { called, cannotRemoveStatus, failings, noSweep, note, swept } from './sweep.ts'
import { copyWorld, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
const missingPython = await missingForWrites()
let full: UpgradeWorld
beforeAll(async () => {
  if (!missing) full = await makeFullWorld()
})
beforeEach((context) => {
  const why = missing ?? missingPython
  if (why) context.skip(why)
})
afterAll(() => full?.remove())

async function inCopy<T>(body: (world: UpgradeWorld) => Promise<T>): Promise<T> {
  const world = await copyWorld(full)
  try {
    return await body(world)
  } finally {
    await world.remove()
  }
}

/**
 * Judges how the runs of a case ended.
 * @param mute whether the first run could neither write its status nor remove it
 * @returns `wrong` and what is wrong with the ends
 */
function judge(fault: string, left: Left[], wrong: string[], mute = false): string[] {
  const [at, ...next] = left
  const good = ['upgraded', 'up-to-date']
  const bad = [...wrong]
  const says = ({ code, outcome, reason }: Left): string => `${code} ${outcome} (${reason})`
  if (at!.code === 0 && !good.includes(at!.outcome ?? '')) bad.push(`first run: ${says(at!)}`)
  if (!mute && at!.code !== 0 && (at!.outcome === null || good.includes(at!.outcome))) {
    bad.push(`its status does not tell of the failure: ${says(at!)}`)
  }
  const isToFail = at!.outcome === 'validation-failed'
  if (
    at!.code !== 0 &&
    at!.code !== 137 &&
    !isToFail &&
    !/cannot|could not|no space|quota exceeded|free and/i.test(at!.said)
  )
    bad.push('says nothing')
  if (!good.includes(next.at(-1)?.outcome ?? '')) bad.push(`last run: ${says(next.at(-1)!)}`)
  note(fault, at!.phase, says(at!), next.map(says).join(', '), bad.join('; '))
  return bad
}

async function withRoom(filesystem: (typeof filesystems)[number], room: Room): Promise<string[]> {
  return inCopy(async (world) => {
    const { left, wrong } = await upgradeWithRoom(world, filesystem, room)
    const mute = filesystem === 'var' && room.readonly
    return judge(`/${filesystem} with ${JSON.stringify(room)}`, left, wrong, mute)
  })
}

/**
 * @param rolledBack whether the upgrade fails a check and is rolled back, and the next commit is good
 * @param byHand commands that the user runs in the repository before the next run
 */
async function withFailing(
  failing: Failing,
  rolledBack = false,
  byHand = 'true',
): Promise<string[]> {
  return inCopy(async (world) => {
    const before = await world.state()
    const env: Record<string, string> = rolledBack ? { UPGRADE_CHECKS: '["false"]' } : {}
    const { left, writes: seen } = await upgradeWithFailingCalls(world, failing, env)
    const wrong: string[] = []
    await world.rain(byHand)
    if (rolledBack) {
      // the commit is known to be bad, or is judged again; either way the state must be as before
      await world.upgrade(env)
      if ((await world.state()) !== before) wrong.push('not as it was before')
      await world.push('good', { 'text.nix': '"three"' })
    }
    const ends = [left]
    for (let run = 0; run < 2; run++) {
      const { code, outcome, phase, reason, said } = await world.upgrade()
      ends.push({ code, outcome, phase, reason, said })
      if (['upgraded', 'up-to-date'].includes(outcome ?? '')) break
    }
    const at = seen.find(({ failed }) => failed)
    if (!at) return ['no such call']
    const fault = called(failing, at)
    wrong.push(...(await notWhole(world, rolledBack ? 'three' : 'two')))
    const mute = failing.error === 'SIGKILL' || cannotRemoveStatus(seen)
    return judge(rolledBack ? `rolled back, ${fault}` : fault, ends, wrong, mute)
  })
}

type Level = [(typeof filesystems)[number], Room]
const levels: Level[] = [
  ['home', { inodes: 0 }],
  ['home', { inodes: 24 }],
  ['home', { inodes: 24, from: 'rebase' }],
  ['home', { kib: 60, from: 'rebase' }],
  ['home', { inodes: 20, from: 'rollback' }],
  ['var', { inodes: 0 }],
  ['var', { kib: 0 }],
  ['nix', { kib: 0 }],
  ['nix', { inodes: 10 }],
  ['nix', { readonly: true, from: 'switch' }],
  ['boot', { kib: 0, from: 'switch' }],
  ['run', { kib: 0 }],
]
/** Space that is gone before the run, or used up by another process during it. */
const allLevels = ['rollback', 'switch', 'rebase', undefined].flatMap((from) =>
  filesystems.flatMap((filesystem) => [
    ...[0, 1, 2, 5, 12, 20, 24, 50, 120, 600, 5000].map((inodes): Level => [
      filesystem,
      { inodes, from },
    ]),
    ...[0, 4, 16, 60, 120, 350, 800, 4000, 20_000].map((kib): Level => [filesystem, { kib, from }]),
    [filesystem, { readonly: true, from }] satisfies Level,
  ]),
)
test.each(levels)('/%s with %o left: the next run upgrades', async (filesystem, room) => {
  expect(await withRoom(filesystem, room)).toEqual([])
})

const places = {
  'HEAD of the repository': 'rebase jj renameat .*/.git/HEAD$',
  'the index of the repository': 'rebase jj openat .*/.git/index.lock$',
  'operations of jj': 'rebase jj openat .*/op_heads/',
  'files of the working copy': 'rebase jj write .*/hosts/h20/default.nix$',
  'jj’s word of the working copy': 'rebase jj renameat .*/working_copy/checkout$',
  'the transaction': 'switch mv renameat2? .*/transaction.json$',
  'the profile': 'nix-env rename .*/profiles/system$',
  'the link to what runs': 'switch ln .*current-system$',
  'what was deployed': 'openat .*/deployed.new$',
  'the last status': 'done bash write .*/status.json.new$',
}
test.each(Object.entries(places))(
  'Writing fails at %s: the next run upgrades',
  async (_, first) => {
    expect(await withFailing({ first, times: 1e9 })).toEqual([])
  },
)

test('If the profile cannot be written, the commit is not blamed, and the status says why', async () => {
  await inCopy(async (world) => {
    const failing = { first: places['the profile'], times: 1 }
    const { left } = await upgradeWithFailingCalls(world, failing)
    expect(left).toMatchObject({
      outcome: 'failed',
      reason: expect.stringMatching(/^Cannot set the system profile: .*No space left on device/),
    })
  })
})

test('Killed while jj moves a bookmark: the leftover lock does not lock the host out', async () => {
  const first = 'rebase jj write .*/logs/refs/heads/main$'
  expect(await withFailing({ first, times: 1, error: 'SIGKILL' })).toEqual([])
})

const killedAt = {
  'before HEAD is locked': 'rebase bash openat .*/.git/HEAD.lock$',
  'before jj’s operation is written': places['operations of jj'],
  'after the checkout': places['jj’s word of the working copy'],
  'as HEAD follows': places['HEAD of the repository'],
  'when HEAD has followed': 'rebase jj .*/refs/heads/head-follows',
}
test.each(Object.entries(killedAt))(
  'The user’s own `jj status` after a kill %s breaks nothing',
  async (_, first) => {
    const byHand = 'jj status || jj workspace update-stale; jj status'
    expect(await withFailing({ first, times: 1, error: 'SIGKILL' }, false, byHand)).toEqual([])
  },
)

// git syncs what it has fetched; what jj has written since is only in the page cache
const powerCut = `cd .git; find objects refs/jj/keep -type f -newer refs/nix-local-upgrade/trunk -print0 |
  while IFS= read -rd '' file; do chmod u+w "$file"; : >"$file"; echo "$file"; done | grep .`
// nothing is written before HEAD is locked
const cutAt = Object.entries({
  ...killedAt,
  'in the checkout': places['files of the working copy'],
}).filter(([at]) => at !== 'before HEAD is locked')
test.each(cutAt)(
  'A power cut %s leaves new files of jj without content: the next run upgrades',
  async (_, first) => {
    expect(await withFailing({ first, times: 1, error: 'SIGKILL' }, false, powerCut)).toEqual([])
  },
)

test('A single failure that jj only warns about is noticed', async () => {
  expect(await withFailing({ first: places['HEAD of the repository'], times: 1 })).toEqual([])
})

const backPlaces = {
  'HEAD of the repository': 'rollback jj renameat .*/.git/HEAD$',
  'the index of the repository': 'rollback jj openat .*/.git/index.lock$',
  'operations of jj': 'rollback jj openat .*/op_heads/',
  'files of the working copy': 'rollback jj write .*/hosts/h20/default.nix$',
  'jj’s word of the working copy': 'rollback jj renameat .*/working_copy/checkout$',
  'the profile': 'rollback nix-env rename .*/profiles/system$',
  'the link to what runs': 'rollback ln .*current-system$',
}
test('A rejected generation that cannot be removed at once is removed by the next run', async () => {
  await inCopy(async (world) => {
    const before = await world.state()
    const remove = `() { if [[ $* == *--delete-generations* && ! -e /root/once ]]; then touch /root/once; return 1; fi; command nix-env "$@"; }`
    const env = { UPGRADE_CHECKS: '["false"]', 'BASH_FUNC_nix-env%%': remove }
    expect(await world.upgrade(env)).toMatchObject({
      outcome: 'validation-failed',
      notRestored: [expect.stringContaining('rejected generation')],
    })
    await world.upgrade(env)
    expect(await world.state()).toBe(before)
  })
})

test.each(Object.entries(backPlaces))(
  'Writing fails at %s during the rollback: the next run completes the rollback',
  async (_, first) => {
    expect(await withFailing({ first, times: 1e9 }, true)).toEqual([])
  },
)

/** Where a run ends, and a bash command that damages its transaction file. */
const spoilt = {
  'is empty': [places['what was deployed'], ': >$file'],
  'is cut short': [
    places['files of the working copy'],
    'text=$(head -c 150 $file); echo "$text" >$file',
  ],
  'is zeros': [places['files of the working copy'], 'head -c 700 /dev/zero >$file'],
  'is a list': [places['what was deployed'], 'echo "[]" >$file'],
  'has no name for a value': [places['files of the working copy'], `echo '{"":"x"}' >$file`],
  'was written by an older agent': [
    places['files of the working copy'],
    'text=$(jq "del(.failedUnits, .revision)" $file); echo "$text" >$file',
  ],
} as const
test.each(Object.entries(spoilt))(
  'A transaction that %s locks no host out',
  async (_, [first, spoil]) => {
    const wrong = await inCopy(async (world) => {
      await upgradeWithFailingCalls(world, { first, times: 1e9 })
      await world.sh(`file=/var/lib/nix-local-upgrade/transaction.json; [[ -s $file ]]; ${spoil}`)
      const { outcome, reason } = await world.upgrade()
      return [
        ...(outcome === 'upgraded' ? [] : [`${outcome}: ${reason}`]),
        ...(await notWhole(world)),
      ]
    })
    expect(wrong).toEqual([])
  },
)

const file = 'tests/agents/full-disk.test.ts'
const hours = 14_400_000

/** Runs cases of a sweep; returns how many failed. */
async function countWrong<T>(cases: T[], play: (one: T) => Promise<string[]>): Promise<number> {
  let wrong = 0
  for (const one of cases) if ((await play(one)).length > 0) wrong++
  return wrong
}

test('At each level of fullness the next run upgrades', { timeout: hours }, async (context) => {
  context.skip(noSweep(file) !== undefined, noSweep(file))
  expect(await countWrong(swept(allLevels), (level) => withRoom(...level))).toBe(0)
})

for (const rolledBack of [false, true]) {
  const name = `Each call${rolledBack ? ' of a rollback' : ''} fails, alone and together with all later ones`
  test(name, { timeout: hours }, async (context) => {
    context.skip(noSweep(file) !== undefined, noSweep(file))
    const env: Record<string, string> = rolledBack ? { UPGRADE_CHECKS: '["false"]' } : {}
    const { writes } = await inCopy((world) =>
      upgradeWithFailingCalls(world, { first: 1, times: 0 }, env),
    )
    // the calls before the rollback are covered by the other sweep
    const calls = rolledBack ? writes.slice(writes.findIndex(isOfRollback)) : writes
    const wrong = await countWrong(swept(failings(calls)), (one) => withFailing(one, rolledBack))
    expect(wrong).toBe(0)
  })
}
const isOfRollback = ({ phase, path }: Write): boolean =>
  phase === 'rollback' || path.includes('/known-bad')

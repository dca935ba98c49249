/**
 * Nothing is lost to a full disk, and it locks no host out. A few levels and calls here; all of them with
 *
 *     LAB_FULL_DISK=matrix.tsv npx vitest run tests/agents/full-disk.test.ts
 *
 * which takes hours, and writes a line a case: what failed, in which phase, how the run ended, how the next
 * ones did, and what was wrong after them. LAB_FULL_DISK_STRIDE=20 takes each 20th call only, from the one
 * that LAB_FULL_DISK_START names on.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { appendFileSync, writeFileSync } from 'node:fs'
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
import { copyWorld, type UpgradeWorld } from './upgrade.ts'

const matrix = process.env['LAB_FULL_DISK']
const stride = Number(process.env['LAB_FULL_DISK_STRIDE'] ?? 1)
const start = Number(process.env['LAB_FULL_DISK_START'] ?? 1)
const missing = await missingForRoot()
const missingPython = await missingForWrites()
let full: UpgradeWorld
/** The calls of a run in which none fails, and of one that is rolled back. */
let writes: Write[] = []
let backWrites: Write[] = []
beforeAll(async () => {
  if (matrix) writeFileSync(matrix, 'fault\tphase\tfirst run\tnext runs\twrong\n')
  if (missing) return
  full = await makeFullWorld()
  if (missingPython) return
  if (!matrix) return
  const count = (env = {}): Promise<Write[]> =>
    inCopy(
      async (world) => (await upgradeWithFailingCalls(world, { first: 1, times: 0 }, env)).writes,
    )
  writes = await count()
  backWrites = await count({ UPGRADE_CHECKS: '["false"]' })
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

/** What is wrong with how the runs of a case ended. */
function judge(fault: string, left: Left[], wrong: string[]): string[] {
  const [at, ...next] = left
  const good = ['upgraded', 'up-to-date']
  const bad = [...wrong]
  const says = ({ code, outcome, reason }: Left): string => `${code} ${outcome} (${reason})`
  if (at!.code === 0 && !good.includes(at!.outcome ?? '')) bad.push(`first run: ${says(at!)}`)
  if (at!.code !== 0 && (at!.outcome === null || good.includes(at!.outcome))) {
    bad.push(`its status does not tell of the failure: ${says(at!)}`)
  }
  if (at!.code !== 0 && !/cannot|could not|no space|free and/i.test(at!.said))
    bad.push('says nothing')
  if (!good.includes(next.at(-1)?.outcome ?? '')) bad.push(`last run: ${says(next.at(-1)!)}`)
  if (matrix) {
    const ends = next.map(says).join(', ')
    appendFileSync(
      matrix,
      `${[fault, at!.phase, says(at!), ends, bad.join('; ')].join('\t').replaceAll('\n', ' ')}\n`,
    )
  }
  return bad
}

async function withRoom(filesystem: (typeof filesystems)[number], room: Room): Promise<string[]> {
  return inCopy(async (world) => {
    const { left, wrong } = await upgradeWithRoom(world, filesystem, room)
    return judge(`/${filesystem} with ${JSON.stringify(room)}`, left, wrong)
  })
}

/** @param rolledBack whether the upgrade fails a check and is put back, and the next commit is a good one */
async function withFailing(failing: Failing, rolledBack = false): Promise<string[]> {
  return inCopy(async (world) => {
    const before = await world.state()
    const env: Record<string, string> = rolledBack ? { UPGRADE_CHECKS: '["false"]' } : {}
    const { left, writes: seen } = await upgradeWithFailingCalls(world, failing, env)
    const wrong: string[] = []
    if (rolledBack) {
      // it is known to be bad, or is judged once more: all is back as it was
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
    const { number, phase, program, call, path } = at
    const where = `${number}, ${phase}: ${program} ${call} ${path}`
    const fault = `${failing.error ?? 'ENOSPC'} ${failing.times === 1 ? 'at' : 'from'} ${where}`
    wrong.push(...(await notWhole(world, rolledBack ? 'three' : 'two')))
    return judge(rolledBack ? `rolled back, ${fault}` : fault, ends, wrong)
  })
}

type Level = [(typeof filesystems)[number], Room]
const levels: Level[] = matrix
  ? filesystems.flatMap((filesystem) => {
      const inodes = [
        0, 1, 2, 3, 5, 8, 12, 16, 18, 20, 22, 24, 28, 35, 50, 70, 90, 120, 200, 600, 1200, 5000,
      ]
      const kib = [
        0, 4, 8, 16, 24, 40, 60, 80, 120, 160, 240, 350, 500, 800, 1500, 4000, 20_000, 80_000,
      ]
      // before the run, and by somebody else while it is at work
      return [undefined, 'rebase', 'switch', 'rollback'].flatMap((from) => [
        ...inodes.map((each): Level => [filesystem, { inodes: each, from }]),
        ...kib.map((each): Level => [filesystem, { kib: each, from }]),
      ])
    })
  : [
      ['home', { inodes: 0 }],
      ['home', { inodes: 24 }],
      ['home', { inodes: 24, from: 'rebase' }],
      ['home', { kib: 60, from: 'rebase' }],
      ['var', { inodes: 0 }],
      ['var', { kib: 0 }],
      ['nix', { kib: 0 }],
      ['nix', { inodes: 10 }],
      ['boot', { kib: 0, from: 'switch' }],
      ['run', { kib: 0 }],
    ]
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

test('A single failure that jj only warns of is seen', async () => {
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
test.each(Object.entries(backPlaces))(
  'Writing fails at %s on the way back: the next run puts the rest back',
  async (_, first) => {
    expect(await withFailing({ first, times: 1e9 }, true)).toEqual([])
  },
)

/** Where a run ends, and a program of bash that spoils its transaction. */
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
    'text=$(jq "del(.headOperation, .head, .failedUnits, .revision)" $file); echo "$text" >$file',
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

test.runIf(matrix)(
  'Each call fails, and all from there on',
  async () => {
    let wrong = 0
    for (const rolledBack of [false, true]) {
      const calls = rolledBack ? backWrites : writes
      for (let at = start; at <= calls.length; at += stride) {
        // what comes before the rollback is the same
        if (rolledBack && calls[at - 1]!.phase !== 'rollback') continue
        for (const times of [1, 1e9])
          if ((await withFailing({ first: at, times }, rolledBack)).length > 0) wrong++
      }
    }
    expect(wrong, `see ${matrix}`).toBe(0)
  },
  14_400_000,
)

import { spawn, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { waitFor } from '../../../lib/retry.ts'
import {
  judgeStatus,
  readStatusLog,
  rejected,
  statesNow,
  watcher,
  type Seen,
} from '../../../lib/scenario/status-log.ts'

const began = '2026-01-01T10:00:00Z'
const over = '2026-01-01T10:00:01Z'
const deployed = (toplevel: string) => ({ commit: 'c'.repeat(40), toplevel, generation: 12 })
const status = (phase: string, outcome: string | null = null, more: object = {}): string =>
  JSON.stringify({
    ...{ phase, outcome, reason: '', host: 'sorrow', mode: 'local' },
    ...{ from: deployed('/nix/store/old'), to: null, notRestored: [], checks: [], started: began },
    finished: outcome === null ? null : over,
    ...more,
  })
const synced = (outcome: string | null, more: object = {}): string =>
  JSON.stringify({
    ...{ phase: 'apply', outcome, reason: null, host: 'sorrow', started: began, finished: null },
    ...(outcome === null
      ? {}
      : {
          ...{ source: '/home/rain/.local/share/chezmoi', branch: 'main', from: null, to: null },
          ...{ captured: [], applied: [], kept: [], conflicts: [], finished: over },
        }),
    ...more,
  })
const seen = (text: string, more: Partial<Seen> = {}): Seen => ({
  ...{ boot: 'one', of: 'upgrade', from: true, profile: false, runs: false, text },
  ...more,
})
const there = { profile: true, runs: true }
const to = { to: deployed('/nix/store/new') }
const begun = ['recover', 'hooks', 'fetch', 'rebase', 'build', 'switch'].map((phase) =>
  seen(status(phase)),
)

test('a state with special characters is read correctly', () => {
  // U+2028 ends a line only in JavaScript
  const text = status('fetch', 'failed', { reason: 'Conflict in a\u2028b' })
  const line = `one upgrade yes no no ${text} end\n`
  expect(readStatusLog(`${line}one begins\n${line}two upgrade yes no no ${text} end\n`)).toEqual([
    seen(text, { left: true }),
    seen(text),
    seen(text, { boot: 'two', left: true }),
  ])
})

test('the states of a complete upgrade are accepted, and those of one that was rolled back', () => {
  const well = [...begun, seen(status('validate', null, to), there)]
  const upgraded = seen(status('done', 'upgraded', to), there)
  expect(judgeStatus([...well, upgraded])).toMatchObject({ state: 'ok' })
  // sampling may miss phases
  expect(judgeStatus([begun[0]!, begun[5]!, upgraded])).toMatchObject({ state: 'ok' })
  const back = [
    seen(status('rollback', null, to)),
    seen(status('validate', 'validation-failed', { to: { ...to.to, generation: null } })),
  ]
  expect(judgeStatus([...well, ...back])).toMatchObject({ state: 'ok' })
  const again = seen(status('recover', null, { started: '2026-01-01T10:05:00Z' }))
  expect(judgeStatus([...well, ...back, again])).toMatchObject({ state: 'ok' })
})

test('a run that took less than a second may be followed by another in the same second', () => {
  const ended = seen(status('done', 'offline', { finished: began }))
  expect(judgeStatus([ended, seen(status('fetch'))])).toMatchObject({ state: 'ok' })
})

test('a run that was killed in its first second may be followed by another in the same second', () => {
  const killed = [...begun, seen(status('validate', null, to), there)]
  expect(judgeStatus([...killed, ...begun])).toMatchObject({ state: 'ok' })
  const ended = seen(status('validate', 'validation-failed', to))
  expect(judgeStatus([...killed, ended, begun[0]!])).toMatchObject({ state: 'failed' })
})

test('a state found at boot belongs to the boot before, and need no longer be true', () => {
  const left = seen(status('done', 'upgraded', to), { boot: 'two', left: true })
  expect(judgeStatus([...begun, seen(status('validate')), left])).toMatchObject({ state: 'ok' })
})

const long = status('fetch', 'failed', { finished: '2026-01-01T10:00:05Z' })

test('an upgrade that continues after a power cut needs no switch', () => {
  const taken = [seen(status('validate', null, to), there)]
  expect(judgeStatus([...taken, seen(status('done', 'upgraded', to), there)])).toMatchObject({
    state: 'ok',
  })
})

test('a run on a full disk need not have been seen at work', () => {
  expect(judgeStatus([seen(long.replace('"failed"', '"no-space"'))])).toMatchObject({ state: 'ok' })
})

test('a state left by an earlier run need not have been seen at work', () => {
  expect(judgeStatus([seen(long, { left: true })])).toMatchObject({ state: 'ok' })
  expect(judgeStatus([seen(status('fetch')), seen(long)])).toMatchObject({ state: 'ok' })
})

test.each<[string, RegExp, Seen[]]>([
  [
    'upgraded before the profile has moved',
    /that was not the profile/,
    [...begun, seen(status('switch', 'upgraded', to))],
  ],
  [
    'upgraded to a system that does not run',
    /that did not run/,
    [...begun, seen(status('done', 'upgraded', to), { profile: true })],
  ],
  [
    'upgraded without an earlier status',
    /seen neither to switch nor/,
    [seen(status('done', 'upgraded', to), there)],
  ],
  [
    'upgraded without a status of the switch',
    /seen neither to switch nor/,
    [...begun.slice(0, -1), seen(status('done', 'upgraded', to), there)],
  ],
  ['the end of a long run without an earlier status', /did not say so/, [seen(long)]],
  [
    'the same in the status of the sync',
    /did not say so/,
    [seen(synced('synced', { finished: '2026-01-01T10:00:05Z' }), { of: 'sync' })],
  ],
  [
    'a start from a system that did not run',
    /^in fetch it did not begin with what ran$/,
    [seen(status('fetch'), { from: false })],
  ],
  [
    'an unknown outcome',
    /^in the status of upgrade is outcome: "fine"$/,
    [seen(status('fetch', 'fine'))],
  ],
  [
    'a commit that is not a hash',
    /is to: commit: "main"$/,
    [seen(status('done', null, { to: { ...to.to, commit: 'main' } }))],
  ],
  ['a missing field', /is checks: missing$/, [seen(status('fetch', null, { checks: undefined }))]],
  ['an extra field', /is dog, which is no field$/, [seen(status('fetch', null, { dog: 'yes' }))]],
  ['an invalid time', /is started: "10:00"$/, [seen(status('fetch', null, { started: '10:00' }))]],
  [
    'a generation as text',
    /is from: generation: "1"$/,
    [seen(status('fetch', null, { from: { ...to.to, generation: '1' } }))],
  ],
  [
    'a check with an invalid result',
    /is checks: result: ""$/,
    [seen(status('fetch', null, { checks: [{ command: 'a', result: '' }] }))],
  ],
  [
    'a conflict without files',
    /^in the status of sync is conflicts: files: missing$/,
    [seen(synced('conflict', { conflicts: [{ host: 'a' }] }), { of: 'sync' })],
  ],
  [
    'the end of a sync without a source',
    /is source: missing$/,
    [seen(synced('synced', { source: undefined }), { of: 'sync' })],
  ],
  [
    'up-to-date with a system that is not the profile',
    /that was not the profile/,
    [seen(status('done', 'up-to-date', to), { runs: true })],
  ],
  [
    'a generation number of a system that was rolled back',
    /^it said `validation-failed` of generation 12, which that is not$/,
    [seen(status('validate', null, to), there), seen(status('validate', 'validation-failed', to))],
  ],
  [
    'a generation number of a system that is not built',
    /is to: generation: 12$/,
    [seen(status('fetch', null, { to: { ...to.to, toplevel: '' } }))],
  ],
  ['a truncated file', /was not whole/, [seen('{"phase":"fet')]],
  ['an empty file, as after a power cut', /was not whole/, [...begun, seen('', { boot: 'two' })]],
  ['an unknown phase', /`dance` is no phase/, [seen(status('dance'))]],
  ['a phase that had already passed', /fetch came after switch/, [...begun, seen(status('fetch'))]],
  [
    'work after a rollback',
    /switch came after rollback/,
    [...begun, seen(status('rollback')), seen(status('switch'))],
  ],
  [
    'work after the end',
    /went on to rebase/,
    [seen(status('fetch', 'offline')), seen(status('rebase'))],
  ],
  [
    'an end without an outcome',
    /an end and no outcome/,
    [seen(status('fetch', null, { finished: over }))],
  ],
  [
    'an end before its beginning',
    /ended before it began/,
    [seen(status('fetch', 'offline', { started: '2026-01-01T19:00:00Z' }))],
  ],
  ['a truncated status of the sync', /status of sync was not whole/, [seen('{', { of: 'sync' })]],
])('the row fails for %s', (_, reason, states) => {
  expect(judgeStatus(states)).toMatchObject({
    state: 'failed',
    found: expect.stringMatching(reason) as string,
  })
})

test('the status of another host fails the row', () => {
  expect(judgeStatus(begun, { host: 'sorrow' })).toMatchObject({ state: 'ok' })
  expect(judgeStatus(begun, { host: 'torment' })).toMatchObject({
    state: 'failed',
    found: expect.stringMatching(/^it names the host sorrow;/) as string,
  })
})

test('a host on which nothing has run yet is n/a', () => {
  expect(judgeStatus([])).toMatchObject({ state: 'n/a' })
})

test('a log that was not watched to the end fails the row', () => {
  const now = status('done', 'offline')
  expect(judgeStatus([], { watched: false })).toMatchObject({ state: 'failed' })
  expect(judgeStatus([], { states: [now] })).toMatchObject({ state: 'failed' })
  expect(judgeStatus(begun, { states: [now] })).toMatchObject({ state: 'failed' })
  expect(judgeStatus([...begun, seen(now)], { states: [`${now} `] })).toMatchObject({ state: 'ok' })
})

test('a generation counts as rejected if it was rolled back, unless it is deployed later', () => {
  const bad = seen(status('validate', 'validation-failed', to))
  const kept = seen(status('validate', 'validation-failed', { ...to, reason: 'x; kept, as the' }))
  expect(rejected([bad])).toEqual(['/nix/store/new'])
  expect(rejected([seen(status('switch', 'switch-failed', to))])).toEqual(['/nix/store/new'])
  expect(rejected([kept])).toEqual([])
  expect(rejected([seen(status('build', 'build-failed'))])).toEqual([])
  expect(rejected([bad, seen(status('done', 'upgraded', to))])).toEqual([])
  // a later commit that returns to the same system and fails does not discredit the earlier one
  expect(rejected([seen(status('done', 'upgraded', to)), bad])).toEqual([])
})

test('the watcher records each state, and whether it was true at that moment', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'watcher-'))
  const state = join(dir, 'lib/nix-local-upgrade')
  for (const path of [state, join(dir, 'old'), join(dir, 'new')])
    mkdirSync(path, { recursive: true })
  const point = (name: string): void => {
    symlinkSync(join(dir, name), join(dir, 'link'))
    renameSync(join(dir, 'link'), join(dir, 'system'))
  }
  const write = (text: string): void => {
    writeFileSync(join(state, 'new'), text)
    renameSync(join(state, 'new'), join(state, 'status.json'))
  }
  point('old')
  symlinkSync(join(dir, 'new'), join(dir, 'system-2-link'))
  symlinkSync(join(dir, 'old'), join(dir, 'system-1-link'))
  const script = watcher
    .replaceAll('/var/lib/', `${dir}/lib/`)
    .replaceAll(/\/nix\/var\/nix\/profiles\/system|\/run\/current-system/g, join(dir, 'system'))
  const process = spawn('bash', ['-c', script], { stdio: ['ignore', 'ignore', 'inherit'] })
  const log = (): Seen[] => {
    try {
      return readStatusLog(readFileSync(join(dir, 'lib/lab-status.log'), 'utf8'))
    } catch {
      return []
    }
  }
  const hasBegun = (): boolean =>
    existsSync(join(dir, 'lib/lab-status.log')) &&
    / begins$/m.test(readFileSync(join(dir, 'lib/lab-status.log'), 'utf8'))
  const next = async (count: number): Promise<Seen> =>
    waitFor(`state ${count}`, 20, () => log()[count - 1])
  try {
    const named = { to: { ...deployed(join(dir, 'new')), generation: 2 } }
    const from = { from: { ...deployed(join(dir, 'old')), generation: 1 } }
    await waitFor('the watcher to begin', 20, () => hasBegun() || undefined)
    write(`${status('fetch', null, from)}\n`)
    expect(await next(1)).toMatchObject({ of: 'upgrade', from: true, profile: false, runs: false })
    write(`${status('switch', null, { ...from, ...named })}\n`)
    expect(await next(2)).toMatchObject({ from: true, profile: false, runs: false })
    point('new')
    write(`${status('done', 'upgraded', { ...from, ...named })}\n`)
    expect(await next(3)).toMatchObject({ from: false, profile: true, runs: true })
    // half a line, as after a power cut
    write('{"phase":')
    expect((await next(4)).text).toBe('{"phase":')
    // the current state is read as it was logged
    const { stdout } = spawnSync('bash', ['-c', statesNow.replaceAll('/var/lib/', `${dir}/lib/`)])
    expect(log().at(-1)!.text.trim()).toBe(String(stdout).trim())
    write('')
    expect((await next(5)).text).toBe('')
    // the number of another generation
    write(status('done', 'upgraded', { to: { ...named.to, generation: 1 } }))
    expect(await next(6)).toMatchObject({ profile: false, runs: true })
    // a profile that was linked by hand has no number
    write(status('done', 'upgraded', { to: { ...named.to, generation: null } }))
    expect(await next(7)).toMatchObject({ profile: true, runs: true })
    expect(judgeStatus(log().slice(0, 3))).toMatchObject({ state: 'ok' })
    expect(judgeStatus(log())).toMatchObject({ state: 'failed' })
  } finally {
    process.kill('SIGKILL')
    rmSync(dir, { recursive: true })
  }
})

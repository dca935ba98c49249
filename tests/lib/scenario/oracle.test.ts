import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import {
  judgeFacts,
  judgeFaults,
  judgeRemote,
  lostChanges,
  type Expected,
} from '../../../lib/scenario/oracle.ts'
import { programPath } from '../../../lib/vm/guest-agent.ts'
import { chosen, defaultOf } from '../../../lib/scenario/boot-entries.ts'
import { statusLog, type Seen } from '../../../lib/scenario/status-log.ts'
import { readFacts, type Facts, type Repository } from '../../../lib/scenario/oracle-facts.ts'
import { asRoot, asUser } from '../../../lib/scenario/oracle-questions.ts'
import { labSubject } from '../../../lib/scenario/subject-lab.ts'

const golden = '/nix/store/aaa-nixos-system-sorrow-lab'
const newer = '/nix/store/bbb-nixos-system-sorrow-lab'
const entry = (toplevel: string): string =>
  `title NixOS\noptions init=${toplevel}/init loglevel=4\n`

const deployedAt = (toplevel: string) => ({ commit: 'c'.repeat(40), toplevel, generation: 12 })

/** A state of the upgrade's status, as the watcher records it. */
const status = (outcome: string, toplevel: string, more: Partial<Seen> = {}): Seen => ({
  ...{ boot: 'one', of: 'upgrade', from: true, profile: true, runs: true },
  text: JSON.stringify({
    ...{ phase: 'done', outcome, reason: '', host: 'sorrow', mode: 'local' },
    ...{ started: '2026-01-01T10:00:00Z', finished: '2026-01-01T10:00:01Z' },
    ...{ from: deployedAt(golden), to: deployedAt(toplevel), notRestored: [], checks: [] },
  }),
  ...more,
})

/** The same run during its switch: an upgrade that ended well must have been seen there. */
const switching = (toplevel: string): Seen => {
  const { text, ...rest } = status('upgraded', toplevel)
  const working = { phase: 'switch', outcome: null, finished: null }
  return { ...rest, text: JSON.stringify({ ...(JSON.parse(text) as object), ...working }) }
}

const start = 'a'.repeat(40)
const edit = 'b'.repeat(40)
const repository: Repository = {
  commits: {
    [start]: { change: undefined, tree: 't1', parents: [], origin: 'A\nStart' },
    [edit]: { change: 'kkkk', tree: 't2', parents: [start], origin: 'A 1\nEdit: tree x' },
  },
  visible: ['kkkk', 'zzzz'],
  shown: [edit, '0'.repeat(40)],
  patches: { [edit]: '+++ b/x\n+one' },
  settling: [],
  heads: [start],
}

/** A host that runs a new generation on trial. */
const well: Facts = {
  bootId: 'one',
  agentBootId: 'one',
  running: newer,
  booted: golden,
  profile: newer,
  gcroot: golden,
  defaultEntry: 'golden-aaa.conf',
  oneShot: 'nixos-generation-2.conf',
  entries: {
    'golden-aaa.conf': `${entry(golden)}linux /EFI/golden/k.efi\n`,
    'nixos-generation-1.conf': `${entry(golden)}linux /EFI/nixos/k.efi\n`,
    'nixos-generation-2.conf': `${entry(newer)}linux /EFI/nixos/k.efi\n`,
  },
  golden: { toplevel: golden, entry: 'golden-aaa.conf' },
  failedTrials: [],
  goldenFiles: { linux: 'same', initrd: 'same' },
  store: '',
  newPaths: 3,
  spoiltPaths: [],
  units: {
    'sshd.service': 'active',
    'golden-boot-validation.service': 'active',
    'boot-complete.target': 'active',
  },
  failedUnits: [],
  deployed: { commit: edit, toplevel: newer },
  transaction: undefined,
  generations: { 1: golden, 2: newer },
  specialisations: [],
  beside: [],
  profileName: 'system',
  current: 2,
  menuLimit: 0,
  loaderConf: 'timeout 0\ndefault nixos-generation-2.conf\nreboot-on-error yes\n',
  bootFiles: [
    'EFI',
    'EFI/golden/k.efi',
    'EFI/nixos/k.efi',
    'loader',
    'loader/entries',
    'loader/entries/golden-aaa.conf',
  ],
  startupScript: 'reset -c',
  openLocks: [],
  trial: { toplevel: newer, entry: 'nixos-generation-2.conf', state: 'armed', boot: 'one' },
  journal: [],
  seen: [switching(newer), status('upgraded', newer)],
  states: [status('upgraded', newer).text],
  unread: [],
  foreign: [],
  repositories: { 'nix-config': repository, '.local/share/chezmoi': repository },
}
const expected: Expected = {
  host: 'sorrow',
  running: newer,
  golden,
  booted: false,
  services: ['sshd.service', 'tailscaled.service'],
  unavailable: { 'tailscaled.service': 'Debian carries no tailscale' },
  mayFail: ['nix-local-upgrade.service'],
  clones: ['nix-config', '.local/share/chezmoi'],
  deployable: (commit) => [start, edit].includes(commit),
}
const failed = (facts: Partial<Facts>, wanted: Partial<Expected> = {}): string[] =>
  judgeFacts({ ...well, ...facts }, { ...expected, ...wanted })
    .filter(({ state }) => state === 'failed')
    .map(({ name }) => name)

test('a unit that may fail may also be restarted', () => {
  const facts = {
    failedUnits: ['acme-a.service'],
    journal: ['acme-a.service: Scheduled restart job, restart counter is at 3.'],
  }
  expect(failed(facts)).toEqual(['failed units', 'journal of this boot'])
  expect(failed(facts, { mayFail: ['acme-*'] })).toEqual([])
})

test('a healthy host fails no row, and what it cannot have is n/a with the reason', () => {
  const rows = judgeFacts(well, expected)
  expect(rows.filter(({ state }) => state === 'failed')).toEqual([])
  expect(rows.filter(({ state }) => state === 'n/a')).toEqual([
    expect.objectContaining({ name: 'tailscaled.service', found: 'Debian carries no tailscale' }),
  ])
})

test('rows that need golden or a status are n/a for a host without them, all others are judged', () => {
  const plain: Partial<Facts> = {
    ...{ running: newer, booted: newer, profile: newer, gcroot: '', golden: undefined },
    ...{ trial: undefined, oneShot: undefined, goldenFiles: {}, deployed: undefined },
    ...{ seen: [], states: [] },
    defaultEntry: 'nixos-generation-2.conf',
    loaderConf: 'timeout 0\ndefault nixos-generation-2.conf\n',
    entries: Object.fromEntries(Object.entries(well.entries).slice(1)),
    bootFiles: ['EFI/nixos/k.efi'],
    units: { 'sshd.service': 'active', 'boot-complete.target': 'active' },
  }
  const lacks = { golden: 'the host has no golden generation', words: 'it says nothing of itself' }
  expect(failed(plain, { lacks })).toEqual([])
  const rows = judgeFacts({ ...well, ...plain }, { ...expected, lacks })
  const unasked = rows.filter(({ state }) => state === 'n/a').map(({ name }) => name)
  expect(unasked).toEqual([
    ...['golden rooted', 'golden bootable', 'golden was booted', 'golden is no failed trial'],
    ...[
      'deployed commit',
      'no half-done upgrade',
      'tailscaled.service',
      'boot validated',
      'status',
    ],
  ])
  // the same rows, whatever subject is judged
  expect(rows.map(({ name }) => name)).toEqual(judgeFacts(well, expected).map(({ name }) => name))
  // the profile was moved for a switch that did not happen
  expect(failed({ ...plain, running: golden }, { lacks, running: golden })).toEqual([
    ...['profile', 'boots next', 'boot default'],
  ])
})

test('without a trial the boot default must be the running system', () => {
  const settled = {
    ...{ running: golden, profile: golden, oneShot: undefined, trial: undefined, current: 1 },
    loaderConf: 'timeout 0\n',
    startupScript: '',
  }
  expect(failed(settled, { running: golden })).toEqual([])
  // the start-up script of a trial must be gone when golden runs; a script of the user may stay
  expect(failed({ ...settled, startupScript: 'reset -c' }, { running: golden })).toEqual(['ESP'])
  expect(failed({ ...settled, startupScript: 'echo mine' }, { running: golden })).toEqual([])
  expect(failed(settled, { running: golden, booted: true })).toEqual([])
})

/** On trial by this entry, according to the boot loader and the record. */
const tried = (name: string): Partial<Facts> => ({
  oneShot: name,
  trial: { ...well.trial!, entry: name },
})
const twin = 'c'.repeat(40)

/** Every row has an input that only this row catches; a row that cannot fail would prove nothing. */
const ill: [row: string, facts: Partial<Facts>, wanted?: Partial<Expected>][] = [
  ['guest agent', { agentBootId: undefined }],
  ['guest agent', { agentBootId: 'another boot' }],
  ['running', {}, { running: golden }],
  ['booted', {}, { booted: true }],
  ['booted', { booted: '' }],
  ['booted', { booted: '/run/booted-system' }],
  ['profile', { profile: golden, trial: { ...well.trial!, toplevel: golden } }],
  [
    'boots next',
    {
      entries: { ...well.entries, 'nixos-generation-2.conf': entry(golden) },
      generations: { 1: golden, 2: golden },
    },
  ],
  ['boots next', { ...tried('gone.conf') }],
  ['boot default', { defaultEntry: 'nixos-generation-2.conf' }],
  ['boot default', { defaultEntry: '' }],
  ['golden rooted', { gcroot: newer }],
  ['golden rooted', { gcroot: '' }],
  ['golden bootable', { goldenFiles: { linux: 'same', initrd: 'differs' } }],
  ['golden bootable', { goldenFiles: { linux: 'same' } }],
  [
    'golden was booted',
    {
      ...{ gcroot: newer, golden: { toplevel: newer, entry: 'golden-bbb.conf' } },
      ...{ defaultEntry: 'golden-bbb.conf' },
      entries: {
        'nixos-generation-1.conf': well.entries['nixos-generation-1.conf']!,
        'nixos-generation-2.conf': well.entries['nixos-generation-2.conf']!,
        'golden-bbb.conf': `${entry(newer)}linux /EFI/golden/k.efi\n`,
      },
    },
  ],
  ['golden is no failed trial', { failedTrials: [`${golden} 2026-01-01 panic`] }],
  ['store', { store: 'path `x` disappeared, but it still has valid referrers' }],
  ['new paths', { spoiltPaths: ["path '/nix/store/x' was modified!"] }],
  ['deployed commit', { deployed: { commit: 'c'.repeat(40), toplevel: newer } }],
  // a generation that has held must have left this record
  ['deployed commit', { deployed: undefined }],
  ['facts', { unread: ['transaction: exit 1'] }],
  ['no half-done upgrade', { transaction: '{}' }],
  ['sshd.service', { units: { ...well.units, 'sshd.service': 'failed' } }],
  ['sshd.service', { units: { ...well.units, 'sshd.service': 'activating' } }],
  ['boot validated', { units: { ...well.units, 'golden-boot-validation.service': 'inactive' } }],
  ['boot complete', { units: { ...well.units, 'boot-complete.target': 'inactive' } }],
  ['generations', { generations: { 1: golden, 2: newer, 3: golden } }],
  ['generations', { generations: { 2: newer } }],
  ['generations', { current: 3 }],
  ['generations', { generations: { 1: newer, 2: newer } }],
  [
    'generations',
    {
      entries: {
        ...well.entries,
        'nixos-generation-9.conf': `${entry(golden)}linux /EFI/nixos/k.efi`,
      },
    },
  ],
  [
    'generations',
    { loaderConf: well.loaderConf.replace('nixos-generation-2', 'nixos-generation-1') },
  ],
  ['rejected generations', { seen: [status('validation-failed', newer)], states: [] }],
  ['rejected generations', { seen: [status('switch-failed', golden)], states: [] }],
  [
    'boot counters',
    {
      entries: {
        'golden-aaa.conf': well.entries['golden-aaa.conf']!,
        'nixos-generation-1.conf': well.entries['nixos-generation-1.conf']!,
        'nixos-generation-2+0-3.conf': well.entries['nixos-generation-2.conf']!,
      },
    },
  ],
  ['trial', { trial: { ...well.trial!, state: 'arming' } }],
  ['trial', { trial: { ...well.trial!, boot: 'another' } }],
  ['trial', { trial: { ...well.trial!, toplevel: golden } }],
  ['trial', { trial: { ...well.trial!, entry: 'nixos-generation-1.conf' } }],
  ['trial', { trial: undefined, loaderConf: '', startupScript: '' }],
  ['ESP', { bootFiles: ['EFI/golden/k.efi.new'] }],
  ['ESP', { bootFiles: ['EFI/golden/of-another.efi'] }],
  ['ESP', { bootFiles: ['EFI/nixos/of-none.efi'] }],
  // a name that is only the beginning of another file's name
  ['ESP', { bootFiles: ['EFI/golden/k'] }],
  ['ESP', { bootFiles: ['EFI/nixos/k.e'] }],
  ['ESP', { entries: { ...well.entries, 'golden-bbb.conf': entry(newer) } }],
  ['ESP', { loaderConf: `${well.loaderConf}preferred golden-gone.conf\n` }],
  ['locks', { openLocks: ['/run/golden-generation.lock'] }],
  ['journal of this boot', { journal: ['sysinit.target: Found ordering cycle: a, b'] }],
  ['journal of this boot', { journal: ['int3: 0000 [#1] PREEMPT SMP'] }],
  [
    'journal of this boot',
    { journal: ['syncthing.service: Scheduled restart job, restart counter is at 3.'] },
  ],
  ['status', { seen: [status('upgraded', newer, { runs: false })] }],
  // the watcher did not see the end, or anything at all
  ['status', { states: [status('offline', newer).text] }],
  ['status', { ...{ seen: [], deployed: undefined }, states: well.states }],
  ['files of the user', { foreign: ['/home/rain/.labrc'] }],
  ['failed units', { failedUnits: ['nix-local-upgrade.service', 'syncthing.service'] }],
  [
    'commits of nix-config',
    {
      repositories: {
        ...well.repositories,
        'nix-config': {
          ...repository,
          commits: { ...repository.commits, [twin]: repository.commits[edit]! },
          shown: [edit, twin],
        },
      },
    },
  ],
  [
    'commits of .local/share/chezmoi',
    {
      repositories: {
        ...well.repositories,
        '.local/share/chezmoi': {
          ...repository,
          commits: {
            ...repository.commits,
            [twin]: { ...repository.commits[edit]!, origin: 'B 1 +0000\nEdit' },
          },
        },
      },
    },
  ],
  [
    'nix-config',
    { repositories: { ...well.repositories, 'nix-config': { ...repository, visible: ['zzzz'] } } },
  ],
  [
    'nix-config',
    { repositories: { ...well.repositories, 'nix-config': { ...repository, commits: {} } } },
  ],
  [
    '.local/share/chezmoi',
    {
      repositories: {
        'nix-config': repository,
        '.local/share/chezmoi': { ...repository, visible: ['zzzz'] },
      },
    },
  ],
]
test.each(ill)('only the row %s fails for %j', (row, facts, wanted) => {
  expect(failed(facts, wanted)).toEqual([row])
})

test('every row has a fact that makes it fail', () => {
  const rows = judgeFacts(well, expected)
    .filter(({ state }) => state !== 'n/a')
    .map(({ name }) => name)
  expect(new Set(rows)).toEqual(new Set(ill.map(([row]) => row)))
})

test('a status that was not watched fails the row', () => {
  expect(failed({ unread: ['status: exit 3'] })).toEqual(['facts', 'status'])
  expect(failed({ unread: ['status: exit 3'], seen: [], states: [], deployed: undefined })).toEqual(
    ['facts', 'status'],
  )
})

test('a golden entry that boots another system is not bootable', () => {
  expect(
    failed({
      entries: { ...well.entries, 'golden-aaa.conf': `${entry(newer)}linux /EFI/golden/k.efi\n` },
    }),
  ).toEqual(['boot default', 'golden bootable'])
})

test('a host without a golden generation fails every row that needs one', () => {
  expect(failed({ golden: undefined, gcroot: '' })).toEqual([
    'boot default',
    'golden rooted',
    'golden bootable',
    'golden was booted',
    'ESP',
  ])
})

test('an entry with a boot counter in its name is found', () => {
  const { 'nixos-generation-2.conf': second, ...others } = well.entries
  const counted = { ...others, 'nixos-generation-2+2-1.conf': second! }
  expect(failed({ entries: counted })).toEqual([])
})

/** Entries as NixOS 26.11 writes them: named by a hash of their content, with a counter until they are blessed. */
const hashed = (number: number, toplevel: string): string =>
  `title NixOS\nsort-key nixos\nversion Generation ${number} NixOS 26.11\nlinux /EFI/nixos/k.efi\noptions init=${toplevel}/init\n`
const nixos: Partial<Facts> = {
  entries: {
    'golden-aaa.conf': well.entries['golden-aaa.conf']!,
    'nixos-1f0a.conf': hashed(1, golden),
    'nixos-2e9b+3.conf': hashed(2, newer),
  },
  loaderConf: 'preferred golden-aaa.conf\ndefault nixos-*\nreboot-on-error yes\n',
  menuLimit: undefined,
  ...tried('nixos-2e9b.conf'),
}

test('entries are matched by their content, whatever their names', () => {
  expect(failed(nixos)).toEqual([])
  const entries = { ...nixos.entries, 'nixos-3d8c.conf': hashed(3, golden) }
  expect(failed({ ...nixos, entries })).toEqual(['generations'])
  const swapped = { ...nixos.entries, 'nixos-2e9b+3.conf': hashed(2, golden) }
  expect(failed({ ...nixos, entries: swapped })).toEqual(['boots next', 'generations'])
  const special = '/nix/store/ccc-nixos-system-sorrow-lab'
  const more = { ...nixos.entries, 'nixos-4c7d.conf': hashed(2, special) }
  expect(failed({ ...nixos, entries: more })).toEqual(['generations'])
  expect(failed({ ...nixos, entries: more, specialisations: [special] })).toEqual([])
})

test('entries of another profile do not count as generations of the deployed one', () => {
  const third = '/nix/store/ddd-nixos-system-sorrow-lab'
  const other = hashed(2, third).replace('title NixOS', 'title NixOS [other]')
  const entries = { ...nixos.entries, 'nixos-5a6b.conf': other }
  expect(failed({ ...nixos, entries, beside: [third] })).toEqual([])
  expect(failed({ ...nixos, entries })).toEqual(['generations'])
  // for the profile `other` the same menu is right: its second generation is the third system
  const by = { ...nixos, entries, profileName: 'other', beside: [golden, newer] }
  const judged = failed({ ...by, generations: { 2: third }, current: 2, menuLimit: 0 })
  expect(judged).not.toContain('generations')
  const gone = failed({ ...by, generations: { 2: third, 3: golden }, current: 3, menuLimit: 0 })
  expect(gone).toContain('generations')
})

test.each([
  ['the EFI variable’s, not that of loader.conf', 'default one.conf', 'two.conf', 'two.conf'],
  ['that of loader.conf if there is no variable', 'timeout 0\ndefault one.conf', '', 'one.conf'],
  [
    'the preferred one, before both',
    'preferred good.conf\ndefault one.conf',
    'two.conf',
    'good.conf',
  ],
  ['a preferred one with a boot counter', 'preferred new.conf', 'two.conf', 'new+2-1.conf'],
  ['not a preferred one that is bad', 'preferred bad.conf', 'two.conf', 'two.conf'],
  ['not a preferred one that is missing', 'preferred gone.conf\ndefault one.conf', '', 'one.conf'],
])('the default entry is %s', (_, conf, variable, boots) => {
  const entries = { 'good.conf': '', 'new+2-1.conf': '', 'bad+0-3.conf': '' }
  expect(defaultOf(entries, conf, variable)).toBe(boots)
})

test('a pattern matches the newest entry that is not bad', () => {
  const entries = {
    'nixos-a.conf': hashed(9, golden),
    'nixos-b+3.conf': hashed(10, newer),
    'nixos-c+0-3.conf': hashed(11, newer),
    'golden-d.conf': hashed(12, golden),
  }
  expect(chosen(entries, 'nixos-*')).toBe('nixos-b+3.conf')
  expect(chosen({ 'nixos-c+0-3.conf': hashed(11, newer) }, 'nixos-*')).toBe('nixos-c+0-3.conf')
  expect(chosen(entries, 'NIXOS-B.conf')).toBe('nixos-b+3.conf')
  expect(chosen(entries, 'nixos.*')).toBeUndefined()
})

test('a rebased change is not lost, an empty one does not count, a dropped one is lost', () => {
  const rebased = 'c'.repeat(40)
  const working = 'd'.repeat(40)
  const commits = {
    ...repository.commits,
    [rebased]: { change: 'kkkk', tree: 't3', parents: [start], origin: 'A 1\nEdit: tree x' },
    [working]: { change: 'wwww', tree: 't1', parents: [start], origin: 'A 2\n' },
    // the commit that jj makes before it clones
    ['e'.repeat(40)]: {
      ...{ change: 'ssss', tree: '4b825dc642cb6eb9a060e54bf8d69288fbee4904' },
      ...{ parents: [], origin: 'A 0\n' },
    },
  }
  expect(lostChanges({ ...repository, commits, visible: ['kkkk'], heads: [start] })).toEqual([])
  expect(lostChanges({ ...repository, commits, visible: [], heads: [rebased] })).toEqual([])
  expect(lostChanges({ ...repository, commits, visible: [], heads: [start] })).toEqual([
    edit,
    rebased,
  ])
})

test('a trial copy of a commit that was dropped is not lost while the original is there', () => {
  const copy = 'c'.repeat(40)
  const merge = 'd'.repeat(40)
  const commits = {
    ...repository.commits,
    [copy]: { ...repository.commits[edit]!, change: 'cccc', tree: 't3' },
    [merge]: { change: 'mmmm', tree: 't4', parents: [edit, start], origin: 'A 3\nMerge' },
  }
  expect(lostChanges({ ...repository, commits, visible: ['kkkk'], heads: [start] })).toEqual([])
  expect(lostChanges({ ...repository, commits, visible: [], heads: [start] })).toEqual([edit, copy])
  // a user's resolution of a conflict is in neither side
  const settled = { ...repository, commits, settling: [merge] }
  expect(lostChanges({ ...settled, visible: ['kkkk'], heads: [start] })).toEqual([merge])
  expect(lostChanges({ ...settled, visible: ['kkkk', 'mmmm'], heads: [start] })).toEqual([])
})

test.each([
  ['was never measured', {}, ['failed', 'failed']],
  [
    'took effect and was healed',
    { bit: { held: true, measured: '20 %' }, healed: { held: true, measured: '0 %' } },
    ['ok', 'ok'],
  ],
  [
    'had no effect',
    { bit: { held: false, measured: '0 %' }, healed: { held: true, measured: '0 %' } },
    ['failed', 'ok'],
  ],
  ['was not healed', { bit: { held: true, measured: '20 %' } }, ['ok', 'failed']],
])('the rows of a fault that %s', (_, fault, states) => {
  expect(judgeFaults([{ name: 'loss', ...fault }]).map(({ state }) => state)).toEqual(states)
})

test('a remote that lost a commit fails, and the commit is named', () => {
  expect(judgeRemote('config', ['a', 'b'], ['b', 'a', 'c']).state).toBe('ok')
  expect(judgeRemote('config', ['a', 'b'], ['b'])).toMatchObject({
    state: 'failed',
    found: 'lost a',
  })
})

const said = (parts: Record<string, string>): string =>
  Object.entries({ ...parts, end: '' })
    .map(([name, text]) => `\u001e${name}\n${text}\n`)
    .join('')

const object = (id: string, text: string): string => `\u001d${id}\n${text}`

test('the output of the guest is parsed into facts', () => {
  const root = said({
    bootId: 'one',
    links: `${newer}\n${golden}\n${newer}\n${golden}`,
    efiDefault: 'golden-aaa.conf',
    efiOneShot: '',
    loaderConf: 'timeout 0\ndefault nixos-generation-2.conf',
    'entry golden-aaa.conf': entry(golden),
    golden: JSON.stringify({ toplevel: golden, entry: 'golden-aaa.conf' }),
    goldenFiles: 'linux same\ninitrd differs',
    units: 'Id=sshd.service\nActiveState=active\n\nId=syncthing.service\nActiveState=failed',
    failedUnits: 'syncthing.service loaded failed failed Syncthing',
    store: 'reading the Nix store...\nchecking path existence...\npath `x` disappeared',
    newPaths: "2\npath '/nix/store/x' was modified! expected hash `a`, got `b`",
    deployed: `${edit} ${start} ${newer} 2026-01-01T00:00:00Z`,
  })
  const user = said({
    'visible nix-config': `kkkk ${edit}\nzzzz ${'0'.repeat(40)}`,
    'patches nix-config': `\u001d${edit}\n\ndiff --git a/x b/x\nindex 0..1\n+++ b/x\n@@ -0,0 +1 @@\n+one\n`,
    'heads nix-config': start,
    'commits nix-config': `${object(start, 'tree t1\nauthor A\n\nStart\n')}\n${object(edit, `tree t2\nparent ${start}\nauthor A 1\nchange-id kkkk\n\nEdit: tree x\n`)}\n`,
  })
  expect(readFacts(root, user, 'one\n')).toMatchObject({
    running: newer,
    booted: golden,
    defaultEntry: 'golden-aaa.conf',
    oneShot: undefined,
    golden: { toplevel: golden },
    goldenFiles: { linux: 'same', initrd: 'differs' },
    store: 'path `x` disappeared',
    newPaths: 2,
    spoiltPaths: [expect.stringContaining('was modified')],
    units: { 'sshd.service': 'active', 'syncthing.service': 'failed' },
    failedUnits: ['syncthing.service'],
    deployed: { commit: edit, toplevel: newer },
    transaction: undefined,
    repositories: { 'nix-config': repository },
  })
})

test('an empty or truncated record is told apart from a missing one', () => {
  const { transaction, unread } = readFacts(
    said({ transaction: '', trial: '{"toplevel":"/nix/store/x","entry":', golden: '' }),
    said({}),
    undefined,
  )
  expect(failed({ transaction })).toEqual(['no half-done upgrade'])
  expect(unread).toEqual(['golden: it holds no JSON', 'trial: it holds no JSON'])
  // `show` prints nothing for a missing file
  const none = '\u001etransaction\n\u001etrial\n\u001egolden\n\u001eend\n'
  expect(readFacts(none, said({}), undefined)).toMatchObject({
    transaction: undefined,
    unread: [],
  })
})

test('an error message of jj does not count as a change, so an unreadable clone fails', () => {
  const user = said({
    'visible nix-config': 'Error: The repository is corrupt\nCaused by: an operation\n',
    'heads nix-config': start,
    'commits nix-config': `${object(start, 'tree t1\nauthor A\n\nStart\n')}\n`,
  })
  const { repositories } = readFacts(said({ bootId: 'one' }), user, undefined)
  expect(failed({ repositories: { ...well.repositories, ...repositories } })).toEqual([
    'nix-config',
  ])
})

/** Runs the oracle's questions on this machine, with programs in place of the guest's. */
function here(script: string, programs: Record<string, string>, home = ''): Facts['unread'] {
  const dir = mkdtempSync(join(tmpdir(), 'programs-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  const silent = Object.fromEntries(
    ['systemctl', 'journalctl', 'nix-store', 'find', 'jj', 'git', 'timeout'].map((name) => [
      name,
      ':',
    ]),
  )
  for (const [name, text] of Object.entries({ ...silent, ...programs }))
    writeFileSync(join(dir, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  writeFileSync(join(dir, 'log'), '')
  const input = script.replace(programPath, '').replaceAll(statusLog, join(dir, 'log'))
  const env = { ...process.env, PATH: `${dir}:${process.env['PATH']}`, HOME: home || dir }
  const { stdout, stderr } = spawnSync('bash', ['-s'], { input, env, encoding: 'utf8' })
  expect(stdout.endsWith('\u001eend\n'), stderr).toBe(true)
  const [root, user] = home ? [said({}), stdout] : [stdout, said({})]
  return readFacts(root, user, undefined).unread
}

const guest = asRoot([], userInfo().username, [], labSubject)
test.each([
  ['journal', { journalctl: 'echo half of it; exit 1' }],
  ['journal', { journalctl: 'echo trouble >&2' }],
  ['failedUnits', { systemctl: 'case $1 in --failed) exit 1 ;; esac' }],
  ['units', { systemctl: 'case $1 in show) exit 1 ;; esac' }],
  ['status', { systemctl: '[ "$*" != "--quiet is-active lab-status-watcher.service" ]' }],
  ['foreign', { find: 'kill -KILL $$' }],
])('a failure to read %s is reported: %j', (name, programs) => {
  const journal = { journalctl: 'echo Started.' }
  // facts that this machine cannot give, as it is not a guest
  const other = /^(links|efi|generations)/
  expect(here(guest, journal).filter((line) => !other.test(line))).toEqual([])
  expect(here(guest, { ...journal, ...programs })).toContainEqual(
    expect.stringMatching(`^${name}: `),
  )
})

test('a missing log of the watcher is reported', () => {
  const script = guest.replaceAll(statusLog, '/var/lib/lab-none')
  expect(here(script, {})).toContainEqual(expect.stringMatching('^status: '))
})

test('a user that the guest does not know is reported', () => {
  const unread = here(asRoot([], 'lab-nobody', [], labSubject), { journalctl: 'echo Started.' })
  expect(unread).toContainEqual(expect.stringMatching('^foreign: '))
})

test.each([
  ['visible', { jj: 'echo half of it; exit 1' }],
  ['heads', { git: '[ "$1" != for-each-ref ]' }],
  ['patches', { git: '[ "$1 $2" != "log --patch" ]' }],
  ['settling', { git: '[ "$1 $2" != "log --merges" ]' }],
  ['commits', { git: '[ "$1" != rev-list ]' }],
  ['commits', { git: '[ "$1" != cat-file ]' }],
])('a failure to read %s of a clone is reported: %j', (name, programs) => {
  const home = mkdtempSync(join(tmpdir(), 'home-'))
  onTestFinished(() => rmSync(home, { recursive: true }))
  mkdirSync(join(home, 'clone'))
  expect(here(asUser(['clone']), {}, home)).toEqual([])
  expect(here(asUser(['clone']), programs, home)).toEqual([`${name} clone: exit 1`])
})

test('a commit message that is not UTF-8 does not hide later commits', () => {
  const texts = ['tree t1\nauthor A\n\nf\ufffdr\n', 'tree t2\nauthor A\n\nStart\n']
  const sent = texts.map((text, at) => `${object(`${at}`.repeat(40), text)}\n`).join('')
  // one byte in the guest becomes three when it is decoded here
  const user = said({ 'commits nix-config': sent })
  const { commits } = readFacts(said({}), user, undefined).repositories['nix-config']!
  expect(Object.keys(commits)).toHaveLength(2)
})

test('a store verification that was killed counts as failed', () => {
  const dir = mkdtempSync(join(tmpdir(), 'store-'))
  onTestFinished(() => rmSync(dir, { recursive: true }))
  writeFileSync(join(dir, 'nix-store'), '#!/bin/sh\nexec kill -KILL $$\n', { mode: 0o755 })
  const script = asRoot([], 'rain', [], labSubject)
  const asked = [...script.matchAll(/^.*nix-store --verify.*$/gm)].map(([line]) => line)
  expect(asked).toHaveLength(2)
  for (const line of asked) {
    const before = `PATH=${dir}:$PATH; s() { :; }; valid=(/nix/store/x)`
    const { stdout } = spawnSync('bash', ['-c', `${before}\n${line}`], { encoding: 'utf8' })
    expect(stdout).toContain('137')
  }
})

test('a missing repository fails every row about it', () => {
  expect(failed({ repositories: { '.local/share/chezmoi': repository } })).toEqual([
    'nix-config',
    'commits of nix-config',
  ])
})

test('a truncated answer is refused', () => {
  const whole = said({ bootId: 'one' })
  expect(() => readFacts(whole.slice(0, -6), whole, undefined)).toThrow('cut short')
})

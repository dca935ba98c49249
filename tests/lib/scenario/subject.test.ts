import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, onTestFinished, test, vi } from 'vitest'
import { chooseGuest, guestStore } from '../../../lib/nix/guest.ts'
import { ownFiles } from '../../../lib/scenario/host-module.ts'
import { openWorld, template } from '../../../lib/scenario/world.ts'
import {
  matrix,
  matrixExit,
  matrixPage,
  matrixText,
  type Judged,
} from '../../../lib/scenario/matrix.ts'
import { allPromises, promises } from '../../../lib/scenario/promise.ts'
import type { Case } from '../../../lib/scenario/family.ts'
import { notAsked, phaseOf, type Subject } from '../../../lib/scenario/subject.ts'
import { recognised, theSubject } from '../../../lib/scenario/subjects.ts'
import { labAgents, labSubject } from '../../../lib/scenario/subject-lab.ts'
import { nixosUpgrade } from '../../../lib/scenario/subject-nixos-upgrade.ts'
import { anyUnit } from '../../../lib/scenario/subject-unit.ts'
import type { CaseResult } from '../../../lib/report/result.ts'
import { project } from '../../../lib/settings.ts'
import { families } from '../../../tasks/pipelines/families.ts'

afterEach(() => void vi.unstubAllEnvs())

const declared = { unit: 'pull', present: true, timer: true }
const upgrade = { kind: null, unit: 'pull', remote: null, promises: null }

test('what upgrades a host is recognised from its configuration', () => {
  const none = { autoUpgradeEnable: false, systemAutoUpgrade: false, comin: false }
  expect(recognised({ ...none, autoUpgradeEnable: true, systemAutoUpgrade: true })).toBe('lab')
  expect(recognised({ ...none, systemAutoUpgrade: true })).toBe('nixos-upgrade')
  expect(recognised({ ...none, comin: true })).toBe('comin')
  expect(recognised(none)).toBeUndefined()
})

test('this project’s hosts are recognised as having the lab’s agents, and a flag overrides that', async () => {
  vi.stubEnv('LAB_FLAKE', project)
  expect(await theSubject(undefined, 'sorrow')).toEqual({ ...labSubject, lacks: {} })
  const other = await theSubject('nixos-upgrade', 'sorrow')
  expect(other).toMatchObject({ kind: 'nixos-upgrade', unit: 'nixos-upgrade' })
  expect(other.module).toContain('flake = lib.mkForce "git://git.lab/config.git?ref=main"')
  // it replaces the lab's agents
  expect(other.module).toContain('goldenGeneration.enable = lib.mkForce false')
  await expect(theSubject('comin', 'sorrow')).rejects.toThrow('Cannot judge comin on `sorrow`')
  await expect(theSubject('nixos-upgrad', 'sorrow')).rejects.toThrow(/`nixos-upgrad`/)
  await expect(theSubject('unit', 'sorrow')).rejects.toThrow('Cannot judge a unit without its name')
})

test('a subject that replaces the lab’s agents turns them off', async () => {
  const home = mkdtempSync(join(tmpdir(), 'subject-'))
  onTestFinished(() => rmSync(home, { recursive: true }))
  vi.stubEnv('LAB_FLAKE', project)
  vi.stubEnv('LAB_HOME', home)
  vi.stubEnv('LAB_GUEST', 'debian')
  const guest = chooseGuest()
  const { module } = await theSubject('nixos-upgrade', 'sorrow')
  const from = await template(guest, ['sorrow'], { [`${ownFiles}/subject.nix`]: module! })
  const { facts } = await openWorld('x', from, ['sorrow']).host('sorrow', 'main', guestStore(guest))
  const { autoUpgradeEnable, goldenEnable, systemAutoUpgrade } = facts
  expect({ autoUpgradeEnable, goldenEnable, systemAutoUpgrade }).toEqual({
    ...{ autoUpgradeEnable: false, goldenEnable: false, systemAutoUpgrade: true },
  })
})

test('promises named in lab.toml apply only to the subject named there', async () => {
  vi.stubEnv('LAB_FLAKE', project)
  vi.stubEnv('LAB_UPGRADE_KIND', 'nixos-upgrade')
  vi.stubEnv('LAB_UPGRADE_PROMISES', 'rollback,lock')
  expect([...(await theSubject(undefined, 'sorrow')).promises]).toEqual(['rollback', 'lock'])
  expect(await theSubject('lab', 'sorrow')).toEqual({ ...labSubject, lacks: {} })
})

test('hosts are not tested for what they are set to do without, but for all else', () => {
  const facts = { branch: 'main', upgrade, declared, here: true }
  const asked = (
    lacks: Subject['lacks'],
    one: Partial<Case> & Pick<Case, 'promise'>,
  ): string | undefined => notAsked(labAgents({ ...facts, lacks }), { ...one, own: true })
  const all = [
    ['clone', ['local']],
    ['rollback', ['rollback', 'checks', 'reach']],
    ['golden', ['fallback']],
    ['sync', ['dotfiles', 'edits']],
    ['preflight', []],
  ] as const
  for (const [need, about] of all) {
    const lacks = { [need]: 'they have none' }
    expect(allPromises.filter((promise) => asked(lacks, { promise }))).toEqual(
      allPromises.filter((promise) => about.some((one) => one === promise)),
    )
    expect(asked(lacks, { promise: 'whole', needs: [need] })).toBe('n/a: they have none')
    expect(asked({}, { promise: 'whole', needs: [need] })).toBeUndefined()
    expect(asked(lacks, { promise: 'whole' })).toBeUndefined()
  }
})

test('hosts that build as part of the switch are expected to be in that phase', () => {
  const made = (lacks: Subject['lacks']): Subject =>
    labAgents({ branch: 'main', upgrade, declared, here: true, lacks })
  const found = (lacks: Subject['lacks']): string[] =>
    ['rebase', 'build', 'preflight', 'validate'].map((phase) => phaseOf(made(lacks), phase))
  expect(found({})).toEqual(['rebase', 'build', 'preflight', 'validate'])
  expect(found({ preflight: 'in the switch' })).toEqual(['rebase', 'switch', 'switch', 'validate'])
})

test('a host that already has system.autoUpgrade keeps its other settings', () => {
  const here = nixosUpgrade({ branch: 'live', upgrade, declared, lacks: {}, here: true })
  expect(here.module).toContain('?ref=live')
  expect(here.module).not.toContain('goldenGeneration')
})

test('a unit gets its promises from lab.toml, its timer is held back, and a missing unit is refused', () => {
  const named = anyUnit({
    ...{ branch: 'main', declared, lacks: {}, here: false },
    upgrade: { ...upgrade, remote: 'https://example.org/c', promises: ['lock'] },
  })
  expect(named).toMatchObject({ unit: 'pull', fetches: 'https://example.org/c' })
  expect(named.status).toBeUndefined()
  expect([...named.promises]).toEqual(['lock'])
  expect(named.module).toContain('systemd.timers."pull".timerConfig')
  const timerless = { ...declared, timer: false }
  expect(
    anyUnit({ branch: 'main', upgrade, declared: timerless, lacks: {}, here: false }).module,
  ).toBeUndefined()
  const absent = { ...declared, present: false }
  expect(() =>
    anyUnit({ branch: 'main', upgrade, declared: absent, lacks: {}, here: false }),
  ).toThrow('Cannot judge `pull.service`: the host has no such unit')
})

test('every case names an existing promise, and every promise has a case', async () => {
  const all = (await families()).flatMap(({ cases }) => cases)
  expect(new Set(all.map(({ promise }) => promise))).toEqual(new Set(Object.keys(promises)))
  expect(all.filter((one) => notAsked(labSubject, one) !== undefined)).toEqual([])
})

test('the families of upgrades and networks have cases that apply to any subject', async () => {
  const other = {
    ...nixosUpgrade({ branch: 'main', upgrade, declared, lacks: {}, here: true }),
  }
  const asked = (await families()).map(({ name, cases }) => [
    name,
    cases.filter((one) => notAsked(other, one) === undefined).length,
  ])
  const counts = Object.fromEntries(asked) as Record<string, number>
  expect(counts['auto-upgrade']).toBeGreaterThan(15)
  expect(counts['chaos-network']).toBeGreaterThan(10)
  // it promises no fallback, and brings no dotfiles
  expect(counts['break-boot']).toBe(0)
  expect(counts['concurrent-edits']).toBe(0)
})

test('a case that does not apply says why', () => {
  const other = nixosUpgrade({ branch: 'main', upgrade, declared, lacks: {}, here: true })
  expect(notAsked(other, { promise: 'rollback' })).toBe(
    'n/a: system.autoUpgrade does not promise it (rollback)',
  )
  expect(notAsked(other, { promise: 'whole', own: true })).toMatch(/^n\/a: it is asked in terms/)
  expect(notAsked(other, { promise: 'whole' })).toBeUndefined()
})

const result = (name: string, state: CaseResult['state'], seconds: number): CaseResult => ({
  ...{ family: 'auto-upgrade', case: name, title: name, hosts: ['sorrow'], state, seconds },
  ...{ reason: state === 'passed' ? '' : `why ${name}`, seed: 1, checks: [], oracle: [] },
  replay: `just auto-upgrade --case ${name}`,
})
const run = (
  title: string,
  makes: Judged['subject']['promises'],
  results: CaseResult[],
): Judged => ({
  ...{ subject: { title, promises: makes }, results, dir: '' },
})

test('the matrix says for each promise who held it, who broke it and who never made it', async () => {
  const all = await families()
  const rows = matrix(
    [
      run('ours', labSubject.promises, [
        result('syntax-error', 'passed', 10),
        result('build-error', 'passed', 20),
        result('unit-fails', 'passed', 30),
      ]),
      run('theirs', new Set(['refuse']), [
        result('syntax-error', 'passed', 8),
        result('build-error', 'failed', 9),
        result('unit-fails', 'skipped', 0),
      ]),
    ],
    all,
  )
  expect(rows.map(({ promise }) => promise)).toEqual(['refuse', 'rollback'])
  const text = matrixText(rows, ['ours', 'theirs'])
  expect(text).toMatch(/^refuse +held \(2 of 2, 30 s\) +broken \(1 of 2, 17 s\) +a commit that/m)
  expect(text).toMatch(/^rollback +held \(1 of 1, 30 s\) +n\/a, not promised +what fails/m)
  expect(text).toContain(
    'theirs: auto-upgrade/build-error: why build-error; replay: just auto-upgrade',
  )
  expect(matrixExit(rows)).toBe(1)
  const page = matrixPage(rows, ['ours', 'theirs'], 'today; <tcg>')
  expect(page).toContain('&lt;tcg&gt;')
  expect(page).toContain('<td class="na">n/a, not promised')
})

test('only broken promises count as failures, and a promise that could not be judged exits with 3', async () => {
  const all = await families()
  const of = (...results: CaseResult[]): ReturnType<typeof matrix> =>
    matrix([run('theirs', new Set(['refuse']), results)], all)
  const fine = result('syntax-error', 'passed', 1)
  expect(matrixExit(of(fine, result('unit-fails', 'failed', 1)))).toBe(0)
  expect(matrixExit(of(fine, result('build-error', 'error', 1)))).toBe(3)
  // nothing was judged
  expect(matrixExit(of(result('unit-fails', 'skipped', 0)))).toBe(3)
})

import { mayFail } from '../lab-settings.ts'
import type { OracleRow } from '../report/result.ts'
import { chosen, initOf } from './boot-entries.ts'
import { judgeBoot, nothingWrong } from './oracle-boot.ts'
import { judgeClones } from './oracle-clones.ts'
import type { Facts, Repository } from './oracle-facts.ts'
import { hasHeld, judgeStatus } from './status-log.ts'

/** What must be true of a VM, as far as it depends on the case and its host. */
export interface Expected {
  /** Its `networking.hostName`; empty where that is not set. */
  host: string
  /** Store path that must run; undefined where the case leaves it open. */
  running: string | undefined
  /** Store path that was golden before. */
  golden: string
  /** Whether the VM must have booted into it, and not only have switched. */
  booted: boolean
  /** Units that must be active, and those that the guest cannot have, with the reason. */
  services: string[]
  unavailable: Record<string, string>
  /** Units that may have failed, such as a refused upgrade; see `mayFail` of lab-settings. */
  mayFail: string[]
  /** Clones that must not lose a commit; the first is the flake's. */
  clones: string[]
  /** Why the VM has no golden generation, or the upgrade no status of its own (`words`). Default: both exist. */
  lacks?: { golden?: string; words?: string }
  /** Whether a commit may be the deployed one; one older than what was deployed before may not. */
  deployable: (commit: string) => boolean
}

/** Judges a VM after any case. Every VM gets every row; one that cannot be judged has failed. */
export function judgeFacts(facts: Facts, expected: Expected): OracleRow[] {
  const { running, golden } = facts
  const { lacks = {} } = expected
  return [
    nothingWrong('facts', 'each could be read', facts.unread),
    row('guest agent', facts.bootId, facts.agentBootId, 'boot '),
    expected.running === undefined
      ? generation('running', running)
      : row('running', expected.running, running),
    expected.booted
      ? row('booted', expected.running ?? running, facts.booted)
      : generation('booted', facts.booted),
    row('profile', running, facts.profile),
    row('boots next', running, target(facts, facts.oneShot ?? facts.defaultEntry)),
    row(
      'boot default',
      lacks.golden ? running : golden?.toplevel,
      target(facts, facts.defaultEntry),
    ),
    ...unless(lacks.golden, [
      row('golden rooted', golden?.toplevel, facts.gcroot),
      row('golden bootable', 'linux same, initrd same', goldenFiles(facts)),
      row(
        'golden was booted',
        golden?.toplevel,
        [expected.golden, facts.booted].find((known) => known === golden?.toplevel) ?? facts.booted,
      ),
      row(
        'golden is no failed trial',
        'none',
        facts.failedTrials.filter((line) => line.split(' ')[0] === golden?.toplevel).join('; ') ||
          'none',
      ),
    ]),
    row('store', 'verifies', facts.store || 'verifies'),
    row(
      'new paths',
      'contents as registered',
      facts.spoiltPaths.join('; ') || 'contents as registered',
    ),
    ...unless(lacks.words, [
      deployedRow(facts, expected),
      row('no half-done upgrade', 'none', facts.transaction ?? 'none'),
    ]),
    ...expected.services.map((unit): OracleRow => {
      const reason = expected.unavailable[unit]
      if (reason === undefined) return row(unit, 'active', facts.units[unit])
      return { name: unit, state: 'n/a', expected: 'active', found: reason }
    }),
    row(
      'failed units',
      'none',
      facts.failedUnits.filter((unit) => !mayFail(unit, expected.mayFail)).join(', ') || 'none',
    ),
    ...unless(lacks.golden, [
      row('boot validated', 'active', facts.units['golden-boot-validation.service']),
    ]),
    row('boot complete', 'active', facts.units['boot-complete.target']),
    ...judgeBoot(facts, expected.mayFail),
    ...unless(lacks.words, [statusRow(facts, expected)]),
    ...expected.clones.map((name) => lostRow(name, facts.repositories[name])),
    ...judgeClones(facts, expected.clones),
  ]
}

/** The rows; all n/a where there is a reason that they cannot be judged. */
const unless = (reason: string | undefined, rows: OracleRow[]): OracleRow[] =>
  reason === undefined ? rows : rows.map((one) => ({ ...one, state: 'n/a', found: reason }))

function row(
  name: string,
  expected: string | undefined,
  found: string | undefined,
  prefix = '',
): OracleRow {
  const held = Boolean(expected) && expected === found
  const shown = (text: string | undefined): string => (text ? prefix + text : 'nothing')
  return { name, state: held ? 'ok' : 'failed', expected: shown(expected), found: shown(found) }
}

/** Any generation holds. A missing link does not, as `readlink -f` prints its own path for it. */
const generation = (name: string, found: string): OracleRow =>
  row(name, 'a generation', /^\/nix\/store\/\S+$/.test(found) ? 'a generation' : found)

/** The toplevel that an entry boots, or a text that says why it boots none. */
function target({ entries }: Facts, id: string): string {
  const text = entries[chosen(entries, id) ?? '']
  if (text === undefined) return `\`${id}\`, which is no entry of the ESP`
  return initOf(text) ?? `\`${id}\`, which names no init`
}

function goldenFiles({ golden, goldenFiles: files, ...facts }: Facts): string {
  if (!golden) return 'no golden generation'
  const boots = target({ ...facts, golden, goldenFiles: files }, golden.entry)
  if (boots !== golden.toplevel) return `its entry boots ${boots}`
  return `linux ${files['linux'] ?? 'missing'}, initrd ${files['initrd'] ?? 'missing'}`
}

const statusRow = ({ seen, states, unread }: Facts, { host }: Expected): OracleRow =>
  judgeStatus(seen, {
    host: host || undefined,
    states,
    watched: !unread.some((one) => one.startsWith('status: ')),
  })

/** The commit that was deployed last must not be older than the one before it. */
function deployedRow({ deployed, seen }: Facts, { deployable }: Expected): OracleRow {
  const name = 'deployed commit'
  const want = 'not older than before'
  if (!deployed) {
    const none: OracleRow = { name, state: 'n/a', expected: want, found: 'no upgrade has held' }
    return hasHeld(seen)
      ? { ...none, state: 'failed', found: 'nothing, of one that has held' }
      : none
  }
  const held = deployable(deployed.commit)
  return {
    name,
    state: held ? 'ok' : 'failed',
    expected: want,
    found: held ? want : deployed.commit,
  }
}

/**
 * Commits that are lost: their change is neither visible nor on the remote, and there is no copy of them. An empty
 * change holds nothing that could be lost, nor does a merge of kept commits, unless it settles a conflict.
 */
export function lostChanges({ commits, visible, settling, heads }: Repository): string[] {
  const ofRemote = new Set<string>()
  for (const stack = [...heads]; stack.length > 0;) {
    const id = stack.pop()!
    if (ofRemote.has(id)) continue
    ofRemote.add(id)
    stack.push(...(commits[id]?.parents ?? []))
  }
  const all = Object.entries(commits)
  const seen = new Set(visible)
  const kept = all.filter(([id, { change }]) => ofRemote.has(id) || (change && seen.has(change)))
  const changes = new Set(kept.map(([, { change }]) => change))
  const origins = new Set(kept.map(([, { origin }]) => origin))
  return all.flatMap(([id, { change, origin, tree, parents }]) => {
    // the root commit has no parent
    const before = parents.length === 0 ? emptyTree : commits[parents[0]!]?.tree
    const empty = parents.length > 1 ? !settling.includes(id) : before === tree
    // a commit that git made comes from the remote, and is judged there
    const safe = change === undefined || changes.has(change) || origins.has(origin)
    return safe || empty ? [] : [id]
  })
}

const emptyTree = '4b825dc642cb6eb9a060e54bf8d69288fbee4904'

function lostRow(name: string, repository: Repository | undefined): OracleRow {
  const expected = 'no commit lost'
  if (!repository || repository.visible.length === 0) {
    return { name, state: 'failed', expected, found: 'no repository' }
  }
  // a commit that git could not print would not be missed below
  const { commits, shown } = repository
  const unread = shown.filter((id) => !(id in commits) && !/^0+$/.test(id))
  if (unread.length > 0) {
    return { name, state: 'failed', expected, found: `git does not have ${unread.join(', ')}` }
  }
  const lost = lostChanges(repository)
  const found =
    lost.length === 0 ? expected : `lost ${lost.map((id) => id.slice(0, 12)).join(', ')}`
  return { name, state: lost.length === 0 ? 'ok' : 'failed', expected, found }
}

/** A fault on its way from announced to healed; each step carries the measurement that proves it. */
export interface Fault {
  name: string
  host?: string
  /** Records what was measured while the fault was on, and whether that proves it. */
  bit: (held: boolean, measured: string) => void
  /** Records what was measured after the fault, and whether that proves that it is gone. */
  healed: (held: boolean, measured: string) => void
}

export interface FaultState {
  name: string
  host?: string
  bit?: { held: boolean; measured: string }
  healed?: { held: boolean; measured: string }
}

/** Measurements must prove that every fault has taken effect and is gone. */
export function judgeFaults(faults: FaultState[]): OracleRow[] {
  return faults.flatMap(({ name, host, ...fault }) =>
    (['bit', 'healed'] as const).map((step): OracleRow => {
      const seen = fault[step]
      return {
        name: `fault ${name}${host ? ` on ${host}` : ''} ${step}`,
        state: seen?.held ? 'ok' : 'failed',
        expected: 'proved by a measurement',
        found: seen?.measured ?? 'not measured',
      }
    }),
  )
}

/** The remote still has every commit that was pushed to it, except those that a case removed. */
export function judgeRemote(name: string, made: string[], reachable: string[]): OracleRow {
  const has = new Set(reachable)
  const lost = made.filter((commit) => !has.has(commit))
  return {
    name: `remote ${name}`,
    state: lost.length === 0 ? 'ok' : 'failed',
    expected: 'every commit that was pushed',
    found: lost.length === 0 ? `${made.length} of ${made.length}` : `lost ${lost.join(', ')}`,
  }
}

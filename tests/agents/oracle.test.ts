/** The oracle on histories that the upgrade and jj really produce, without a VM. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { lostChanges } from '../../lib/scenario/oracle.ts'
import { changed } from '../../lib/scenario/oracle-clones.ts'
import { readFacts, type Repository } from '../../lib/scenario/oracle-facts.ts'
import { asUser } from '../../lib/scenario/oracle-questions.ts'
import {
  judgeStatus,
  readStatusLog,
  rejected,
  watcher,
  type Seen,
} from '../../lib/scenario/status-log.ts'
import { missingForRoot } from './root.ts'
import { agent, copyWorld, makeUpgradeWorld, settings, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
let first: UpgradeWorld
let world: UpgradeWorld
beforeAll(async () => {
  if (!missing) first = await makeUpgradeWorld()
})
beforeEach(async (context) => {
  if (missing) context.skip(missing)
  world = await copyWorld(first)
})
afterEach(() => world?.remove())
afterAll(() => first?.remove())

/** The clone as the oracle reads it. */
async function clone(): Promise<Repository> {
  const said = await world.sh(asUser(['nix-config']), { user: 'rain' })
  const { unread, repositories } = readFacts('\u001eend\n', `${said}\n`, undefined)
  expect(unread).toEqual([])
  const found = repositories['nix-config']!
  // every change that jj shows, except the root, is a commit in git
  const known = found.shown.filter((id) => id in found.commits)
  expect(known).toHaveLength(found.shown.length - 1)
  return found
}

/** Three local commits of the host, the second by a guest. */
const own = `
  echo one >one.txt && jj --config user.name=Guest --config user.email=guest@localhost commit -m 'Own one'
  echo two >two.txt && jj commit -m 'Own two'
  echo three >three.txt && jj commit -m 'Own three'`

test('commits that were rebased, refused or left alone are complete', async () => {
  await world.rain(own)
  await world.push('two', { 'text.nix': '"two"' })
  expect((await world.upgrade()).outcome).toBe('upgraded')
  const after = await clone()
  // the oracle has really seen commits, before and after
  expect(after.shown.length).toBeGreaterThan(5)
  const authors = Object.values(after.commits).map(({ origin }) => origin.split(' ')[0])
  expect(authors).toEqual(expect.arrayContaining(['rain', 'Guest']))
  expect(Object.values(after.patches).join('\n')).toContain('+three')
  expect([changed(after, true), lostChanges(after)]).toEqual([[], []])

  await world.rain(`echo '"mine"' >text.nix && jj commit -m Mine`)
  await world.push('three', { 'text.nix': '"three"' })
  expect((await world.upgrade()).outcome).toBe('conflict')
  const refused = await clone()
  expect([changed(refused, true), lostChanges(refused)]).toEqual([[], []])
})

test('a merge that settles a conflict counts as a change, and one that git makes by itself does not', async () => {
  const said = await world.rain(`id() { jj log --no-graph --revisions "$1" --template commit_id; }
    printf '%s\\n' a b c d e >text && jj commit --quiet -m Base && base=$(id @-)
    sed -i s/a/A/ text && jj commit --quiet -m Left && left=$(id @-)
    jj new --quiet "$base" && sed -i s/e/E/ text && jj commit --quiet -m Right && right=$(id @-)
    jj new --quiet "$base" && sed -i s/a/X/ text && jj commit --quiet -m Other && other=$(id @-)
    jj new --quiet "$left" "$right" -m Clean && jj status >/dev/null && clean=$(id @)
    jj new --quiet "$left" "$other" -m Left-open && jj status >/dev/null && open=$(id @)
    jj new --quiet "$left" "$other" -m Settled && printf '%s\\n' AX b c d e >text && jj status >/dev/null && settled=$(id @)
    jj new --quiet "$base" && jj abandon --quiet "$clean" "$open" "$settled" && echo "$settled"`)
  const settled = said.trim().split('\n').at(-1)!
  const found = await clone()
  expect(found.settling).toEqual([settled])
  expect(lostChanges(found)).toEqual([settled])
})

const rebase = 'without_head repo_jj rebase --branch @ --onto "$remote_commit"'

test.each([
  [
    'leaves all but the last',
    'without_head repo_jj rebase --revisions @- --onto "$remote_commit"',
    /does not stand on|lost/,
  ],
  [
    'squashes them',
    `{ ${rebase} && repo_jj squash --from @-- --into @- -m squashed; }`,
    /message|lost/,
  ],
  [
    'makes itself their author',
    `{ ${rebase} && repo_jj metaedit --update-author -r 'main@origin..@-' --config user.name=root; }`,
    /^the author of/,
  ],
])('an agent that %s is detected', async (_, careless, wrong) => {
  await world.rain(own)
  await world.push('two', { 'text.nix': '"two"' })
  const cut = agent.replaceAll(rebase, careless)
  expect(cut).not.toBe(agent)
  world.write('root/agent', cut)
  const { outcome, said } = await world.upgrade()
  const found = await clone()
  const lost = lostChanges(found).map(() => 'lost')
  expect([...changed(found, true), ...lost].join('\n'), `${outcome}\n${said}`).toMatch(wrong)
})

test('the agent’s status has the form that the watcher expects', async () => {
  const text = world.read('var/lib/nix-local-upgrade/status.json').trimEnd()
  // the watcher finds toplevel and generation by this pattern
  const { to, from } = JSON.parse(text)
  const [, named, number] =
    /"to":\{[^}]*"toplevel":"(\/[^"]+)","generation":([0-9a-z]+)/.exec(text) ?? []
  expect([named, number]).toEqual([to.toplevel, String(to.generation)])
  expect(/"from":\{[^}]*"toplevel":"(\/[^"]+)"/.exec(text)?.[1]).toBe(from.toplevel)
  expect(readStatusLog(`boot upgrade yes yes yes ${text} end\n`)).toMatchObject([{ text }])
})

/** Runs the agent like `world.upgrade`, with the watcher. */
async function watched(env: Record<string, string> = {}): Promise<void> {
  world.write('root/watcher', watcher)
  const script = `bash /root/watcher & watcher=$!
    bash -euo pipefail /root/agent; sleep 0.5; kill $watcher`
  const options = { env: { ...settings, ...env }, daemon: true, allow: [1, 128, 137, 143] }
  await world.run(['bash', '-c', script], options)
}
const states = (): Seen[] => readStatusLog(world.read('var/lib/lab-status.log'))

test('a good upgrade, one that is rolled back, one that is killed: the status was true', async () => {
  await watched()
  await world.push('two', { 'text.nix': '"two"' })
  await watched()
  expect(states().some(({ text }) => text.includes('"upgraded"'))).toBe(true)
  await world.push('three', { 'text.nix': '"three"' })
  await watched({ UPGRADE_CHECKS: '["false"]' })
  expect(rejected(states())).toHaveLength(1)
  await watched({ UPGRADE_CHECKS: '["false"]' })
  expect(states().at(-1)?.text).toContain('skipped-known-bad')
  await world.push('four', { 'text.nix': '"four"' })
  await watched({
    UPGRADE_PHASE_HOOK:
      'kill_in() { [[ $1 != validate ]] || kill -KILL $(pgrep -f /root/agent); }; kill_in',
  })
  expect(states().at(-1)?.text).toContain('"outcome":null')
  await watched()
  expect(states().at(-1)?.text).toContain('"upgraded"')
  expect(states().length).toBeGreaterThan(20)
  const row = judgeStatus(states())
  expect(row.state, row.found).toBe('ok')
  expect(rejected(states())).toHaveLength(1)
})

test('an agent that reports an upgrade too early is detected', async () => {
  const early = 'write_status upgraded "Runs it"; sleep 0.2; nix-env --profile "$profile" --set'
  const cut = agent.replace('nix-env --profile "$profile" --set', early)
  expect(cut).not.toBe(agent)
  world.write('root/agent', cut)
  await world.push('two', { 'text.nix': '"two"' })
  await watched()
  expect(judgeStatus(states())).toMatchObject({
    state: 'failed',
    found: expect.stringMatching(/it said `upgraded` of a generation that was not the profile/),
  })
})

import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'
import { makeSshd } from '../lib/ssh/sshd.ts'
import { makeDotfiles, type Host } from './dotfiles.ts'
import { startRemotes, type Remotes } from './remotes.ts'
import { missingForRoot } from './root.ts'
import { makeUpgradeWorld, settings, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
let world: UpgradeWorld
let host: Host
let remotes: Remotes
let home = ''
beforeAll(async () => {
  if (missing) return
  remotes = await startRemotes()
  world = await makeUpgradeWorld()
  await world.sh(`printf %s '${remotes.ca}' >ca.pem; git config --global http.sslCAInfo ~/ca.pem`, {
    user: 'rain',
  })
  const dotfiles = await makeDotfiles(world, { '.a': 'a\n' })
  host = dotfiles.sorrow
  await host.sh('git config --global http.sslCAInfo /home/rain/ca.pem')
  home = dotfiles.remote
})
beforeEach((context) => {
  if (missing) context.skip(missing)
})
afterAll(async () => {
  remotes?.stop()
  await world?.remove()
})

/** The outcomes of both agents with a remote at this URL; checks that an edit of a dotfile stays. */
async function both(url: string) {
  const usual = '/home/rain/config.git'
  const before = await world.state()
  await world.rain(`git remote set-url origin '${url}'`)
  const upgraded = await world.upgrade()
  await world.rain(`git remote set-url origin ${usual}`)
  expect(await world.state()).toBe(before)
  expect(await world.sh('ls /var/lib/nix-local-upgrade')).not.toMatch(/known-bad|transaction/)
  const synced = await host.sync({ CHEZMOI_REPO_URL: url })
  await host.sync({ CHEZMOI_REPO_URL: home })
  return [upgraded, synced]
}

test.each<[string, () => string, RegExp]>([
  ['401', () => `${remotes.http}/401/x.git`, /could not read Username.*; the remote wants a name/],
  ['403', () => `${remotes.http}/403/x.git`, /error: 403; .* a token may have expired/],
  ['404', () => `${remotes.http}/404/x.git`, /not found; look at the URL/],
  ['410', () => `${remotes.http}/410/x.git`, /error: 410; look at the URL/],
  ['451', () => `${remotes.http}/451/x.git`, /error: 451/],
  ['a redirect to a login', () => `${remotes.http}/login/x.git`, /; the URL leads to a web page/],
  ['a web page', () => `${remotes.http}/page/x.git`, /; the URL leads to a web page/],
  ['a repository that is not exported', () => `${remotes.daemon}/config.git`, /not exported/],
  ['another protocol', () => `${remotes.http.replace('http', 'git')}/x.git`, /protocol error/],
  ['no TLS', () => `${remotes.http.replace('http', 'https')}/x.git`, /unable to access/],
  [
    'an expired certificate',
    () => `${remotes.expired}/x.git`,
    /the certificate of the remote expired on 2020-02-01, and it is \d{4}-\d\d-\d\d here: the remote has to renew it/,
  ],
  [
    'a certificate of the years to come',
    () => `${remotes.future}/x.git`,
    /is not valid before 2040-01-01, and it is \S+ here: the clock of this machine is behind/,
  ],
  [
    'a certificate by the clock of this machine',
    () => `${remotes.skewed}/x.git`,
    /the clock of this machine is wrong: it is \S+ here and 2020-01-15 on the remote/,
  ],
  [
    'a certificate of a stranger',
    () => `${remotes.stranger}/x.git`,
    /its issuer is not trusted by this machine/,
  ],
])('%s is a permanent error: failed', async (_, url, reason) => {
  for (const { outcome, code, reason: said } of await both(url())) {
    expect.soft([outcome, code]).toEqual(['failed', 1])
    expect.soft(said).toMatch(/^Cannot fetch/)
    expect.soft(said).toMatch(reason)
  }
})

test.each<[string, () => string]>([
  ['500', () => `${remotes.http}/500/x.git`],
  ['502', () => `${remotes.http}/502/x.git`],
  ['503', () => `${remotes.http}/503/x.git`],
  ['429', () => `${remotes.http}/429/x.git`],
  ['a connection that is reset', () => `${remotes.http}/reset/x.git`],
  ['a line that damages lengths', () => remotes.damaged.line],
  ['a line that damages packs', () => remotes.damaged.pack],
  ['an answer that is cut', () => `${remotes.http}/cut/x.git`],
  ['a port that is closed', () => 'http://127.0.0.1:9/404/x.git'],
  ['a port of ssh that is closed', () => 'ssh://127.0.0.1:9/denied.git'],
  ['a port of git that is closed', () => 'git://127.0.0.1:9/not-found.git'],
  ['a name that does not resolve', () => 'https://not-found.invalid/x.git'],
  ['a name that ssh does not resolve', () => 'git@denied.invalid:x.git'],
])('%s is a temporary error: offline', async (_, url) => {
  for (const { outcome, code, reason } of await both(url())) {
    expect.soft([outcome, code], reason ?? '').toEqual(['offline', 0])
  }
  // bytes that are not UTF-8 would make the status invalid JSON
  const odd = "LC_ALL=C.UTF-8 grep -axv '.*' /var/lib/nix-local-upgrade/status.json || true"
  expect(await world.sh(odd)).toBe('')
})

test('Bytes that are not UTF-8 are left out of a text, and a text of nothing else breaks no agent', async () => {
  const script = (text: string): string =>
    `. ${join(project, 'nix/agents/reasons.sh')}; readable ${text}; printf %s "[$REPLY]"`
  for (const [text, rest] of [
    ["$'gr\\xc3\\xbcn \\xff.'", '[grün .]'],
    ["$'\\xff\\xfe'", '[]'],
    ["''", '[]'],
  ] as const)
    expect((await run('bash', ['-euo', 'pipefail', '-c', script(text)])).stdout).toBe(rest)
})

test('An unknown host key, a changed one, and a user key that is refused: failed', async () => {
  const sshd = await makeSshd()
  onTestFinished(() => sshd.stop())
  await sshd.start()
  const url = `ssh://${sshd.target.user}@127.0.0.1:${sshd.target.port}/x.git`
  const known = (key: string): Promise<string> =>
    world.sh(
      `mkdir -p -m 700 .ssh; echo '[127.0.0.1]:${sshd.target.port} ${key.trim()}' >.ssh/known_hosts`,
      { user: 'rain' },
    )
  const other = await makeSshd()
  onTestFinished(() => other.stop())
  const steps: [string, RegExp][] = [
    ['', /Host key verification failed\.; the remote's host key is not the one/],
    [other.target.hostKey, /Host key verification failed/],
    [sshd.target.hostKey, /Permission denied \(publickey\)\.; the remote accepts none of the keys/],
  ]
  for (const [key, reason] of steps) {
    if (key) await known(key)
    for (const { outcome, code, reason: said } of await both(url)) {
      expect.soft([outcome, code]).toEqual(['failed', 1])
      expect.soft(said).toMatch(reason)
    }
  }
})

test('A run in a terminal does not prompt', async () => {
  const sshd = await makeSshd()
  onTestFinished(() => sshd.stop())
  await sshd.start()
  const before = await world.rain('git remote get-url origin')
  const url = `ssh://${sshd.target.user}@127.0.0.1:${sshd.target.port}/x.git`
  await world.rain(`git remote set-url origin ${url}`)
  onTestFinished(async () => void (await world.rain(`git remote set-url origin ${before}`)))
  const remote = { UPGRADE_MODE: 'remote', UPGRADE_FLAKE_URL: `git+${url}` }
  for (const env of [settings, { ...settings, ...remote }]) {
    const terminal = 'import pty, sys; pty.spawn(sys.argv[1:])'
    const command = ['bash', '-euo', 'pipefail', '/root/agent']
    await world.run(command, { env, daemon: true, around: ['python3', '-c', terminal] })
    const { outcome, reason } = world.status()
    expect
      .soft([outcome, reason])
      .toEqual(['failed', expect.stringMatching(/Host key verification failed/)])
  }
})

test('Objects that belong to root are named with the fix, after which the next run goes on', async () => {
  const commit = await world.push('two', { 'text.nix': '"two"' })
  await world.sh('chown -R 0:0 /home/rain/nix-config/.git/objects')
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'failed', phase: 'fetch' })
  expect(done.reason).toMatch(
    /insufficient permission.*; \S+objects\S* belongs to root: `sudo chown -R rain: \/home\/rain\/nix-config` gives it back$/,
  )
  await world.sh('chown -R 1000:100 /home/rain/nix-config/.git')
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded', to: { commit } })

  // another user has pushed a dotfile
  const source = `${host.home}/.local/share/chezmoi`
  await host.sh(`git clone -q ${home} ~/afar; cd ~/afar; git config user.name x; git config user.email x@y
    echo b >dot_b; git add dot_b; git commit -qm b; git push -q`)
  await world.sh(`chown -R 0:0 ${source}/.git/objects`)
  const synced = await host.sync()
  expect(synced).toMatchObject({ code: 1, outcome: 'failed' })
  expect(synced.reason).toMatch(/belongs to root: `sudo chown -R rain: \S+chezmoi` gives it back$/)
  await world.sh(`chown -R 1000:100 ${source}/.git`)
  expect(await host.sync()).toMatchObject({ outcome: 'synced', applied: ['.b'] })
})

test('A repository that does not belong to its user is a failure that says so', async () => {
  await world.sh('chown -R 0:0 /home/rain/nix-config')
  const done = await world.upgrade()
  await world.sh('chown -R 1000:100 /home/rain/nix-config')
  expect(done).toMatchObject({ code: 1, outcome: 'failed' })
  expect(done.reason).toMatch(/dubious ownership.*belongs to root: `sudo chown -R rain: /)
})

test('A shallow clone is named, and upgrades go on once it is complete', async () => {
  const commit = await world.push('three', { 'text.nix': '"three"' })
  await world.sh(
    'mv nix-config whole; git clone -q --depth 1 file:///home/rain/config.git nix-config; cd nix-config; jj git init --colocate',
    { user: 'rain' },
  )
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'failed' })
  expect(done.reason).toMatch(
    /is a shallow clone.*`git -C \/home\/rain\/nix-config fetch --unshallow`/,
  )
  await world.rain('git fetch -q --unshallow')
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded', to: { commit } })
})

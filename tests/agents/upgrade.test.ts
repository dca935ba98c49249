import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { missingForRoot } from './root.ts'
import {
  agent,
  copyWorld,
  killedIn,
  flake,
  makeUpgradeWorld,
  settings,
  type UpgradeWorld,
} from './upgrade.ts'

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

test('A good commit is deployed, and the next run finds nothing to do', async () => {
  const commit = await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded', phase: 'done', notRestored: [] })
  expect(done.to).toMatchObject({ commit, generation: 2 })
  expect(done.from.generation).toBe(1)
  expect(await world.sh('cat /run/current-system/text')).toBe('two')
  expect(await world.sh('readlink -f /nix/var/nix/profiles/system')).toBe(done.to!.toplevel)
  expect(
    await world.rain('cat text.nix; jj log --no-graph -r "main & main@origin" -T commit_id'),
  ).toBe(`"two"${commit}`)
  expect(world.read('var/lib/nix-local-upgrade/deployed').split(' ').slice(0, 3)).toEqual([
    commit,
    commit,
    done.to!.toplevel,
  ])
  const phases = [...done.said.matchAll(/phase: (\w+)/g)].map(([, name]) => name)
  expect(phases.join(' ')).toBe(
    'lock recover hooks dotfiles fetch rebase build preflight switch validate clean done',
  )
  const before = await world.state()
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'up-to-date' })
  expect(await world.state()).toBe(before)
})

test('A build error changes nothing, is remembered, and the next good commit goes on', async () => {
  const before = await world.state()
  const bad = await world.push('bad', { 'text.nix': '"build fails"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'build-failed', phase: 'build', notRestored: [] })
  expect(done.reason).toContain('Cannot build')
  expect(await world.state()).toBe(before)
  expect(world.read('var/lib/nix-local-upgrade/known-bad')).toMatch(`${bad} build-failed 2`)

  const again = await world.upgrade()
  expect(again).toMatchObject({ code: 0, outcome: 'skipped-known-bad', phase: 'fetch' })
  expect(again.said).not.toContain('phase: build')
  expect(await world.state()).toBe(before)

  await world.push('good', { 'text.nix': '"good"' })
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'upgraded' })
})

test('A syntax error names its place', async () => {
  const before = await world.state()
  await world.push('bad', { 'text.nix': '"unclosed' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'build-failed' })
  expect(done.reason).toContain('text.nix:1')
  expect(await world.state()).toBe(before)
})

test('A file that was never added is named, and whether it exists untracked', async () => {
  const before = await world.state()
  await world.push('import', { 'text.nix': 'import ./hosts/new.nix' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'build-failed' })
  expect(done.reason).toBe('`hosts/new.nix` is not in the commit')
  expect(await world.state()).toBe(before)

  // the file exists, and git is told to ignore it
  await world.push('again', { '.gitignore': 'new.nix\n' })
  await world.rain(`mkdir hosts; echo '"new"' >hosts/new.nix; echo new.nix >>.git/info/exclude`)
  const there = await world.upgrade()
  expect(there.reason).toBe(
    '`hosts/new.nix` is not in the commit: the file is there, but not tracked',
  )
  await world.push('add', { 'hosts/new.nix': '"new"' })
  await world.rain('rm hosts/new.nix')
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('Local commits are rebased and deployed, and work in progress is rebased but not deployed', async () => {
  await world.rain(`echo mine >mine; jj commit -m mine; echo draft >draft`)
  await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(await world.rain('jj log --no-graph -r "main@origin..@" -T \'description ++ "|"\'')).toBe(
    '|mine\n|',
  )
  expect(await world.rain('cat mine draft text.nix')).toBe('mine\ndraft\n"two"')
  expect(done.to!.commit).toBe(await world.rain('jj log --no-graph -r @- -T commit_id'))
  expect(await world.upgrade()).toMatchObject({ outcome: 'up-to-date' })
})

test('A trunk bookmark that points elsewhere is not left conflicted, and only root can hold the lock', async () => {
  await world.rain(`echo '"side"' >side.nix && jj commit -m Side && jj bookmark set main --revision @-
    jj new main@origin && echo '"mine"' >own.nix && jj commit -m Mine`)
  await world.push('two', { 'text.nix': '"two"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  expect(await world.rain('jj log --no-graph -r main -T description')).toBe('Mine')
  expect(await world.sh('stat --format %a /run/nix-local-upgrade.lock')).toBe('600')
})

test('A local commit is deployed even without changes from the remote', async () => {
  await world.rain(`printf '"mine"' >text.nix; jj describe -m mine`)
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(await world.sh('cat /run/current-system/text')).toBe('mine')
  expect(done.to!.commit).toBe(await world.rain('jj log --no-graph -r @ -T commit_id'))
})

test('A local commit that conflicts is named, and nothing is changed', async () => {
  await world.rain(`printf '"mine"' >text.nix; jj commit -m mine; echo draft >draft; jj status`)
  const before = await world.state()
  await world.push('theirs', { 'text.nix': '"theirs"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'conflict', phase: 'rebase', notRestored: [] })
  expect(done.reason).toBe('Conflict in text.nix')
  expect(await world.state()).toBe(before)
  expect(await world.upgrade()).toMatchObject({ code: 1, outcome: 'conflict' })
  expect(await world.state()).toBe(before)
})

test('Committed conflict markers are not deployed', async () => {
  const before = await world.state()
  const marked = '<<<<<<< one\na\n=======\nb\n>>>>>>> two\n'
  await world.push('merged', { 'text.nix': '"two"', 'a note.txt': marked.trim() })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'conflict', reason: 'Conflict in a note.txt' })
  expect(await world.state()).toBe(before)
})

test('A trunk that was rewritten is refused until it is accepted by name', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  await world.upgrade()
  const before = await world.state()
  await world.sh(
    `cd other; git reset -q --hard HEAD~1; printf '"other"' >text.nix; git commit -qam other; git push -qf`,
    { user: 'rain' },
  )
  const trunk = await world.sh('git -C other rev-parse HEAD', { user: 'rain' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'diverged', phase: 'fetch' })
  expect(done.reason).toContain(`does not descend`)
  expect(await world.state()).toBe(before)
  expect(await world.upgrade({}, '--accept', trunk)).toMatchObject({ outcome: 'upgraded' })
  expect(await world.sh('cat /run/current-system/text')).toBe('other')
  expect(await world.upgrade()).toMatchObject({ outcome: 'up-to-date' })
})

test('A missing trunk is a failure, and a rewound one is refused', async () => {
  const absent = await world.upgrade({ UPGRADE_BRANCH: 'simple' })
  expect(absent).toMatchObject({ code: 1, outcome: 'failed' })
  expect(absent.reason).toBe('The remote has no branch simple')
  await world.push('two', { 'text.nix': '"two"' })
  await world.upgrade()
  await world.sh('cd other; git push -qf origin HEAD~1:main', { user: 'rain' })
  expect(await world.upgrade()).toMatchObject({ code: 1, outcome: 'diverged' })
})

test('An unreachable or silent remote is no failure, and the next run catches up', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  const url = await world.rain('git remote get-url origin')
  const to = (remote: string): Promise<string> => world.rain(`git remote set-url origin ${remote}`)
  await to('git://127.0.0.1:9/config.git')
  const refused = await world.upgrade()
  expect(refused).toMatchObject({ code: 0, outcome: 'offline', phase: 'fetch' })
  expect(refused.reason).toMatch(/Cannot reach the remote: fatal: .*127\.0\.0\.1/)
  // a server that accepts connections and never answers
  const silent = (await import('node:net')).createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => silent.once('listening', resolve))
  await to(`git://127.0.0.1:${(silent.address() as { port: number }).port}/config.git`)
  const from = performance.now()
  const late = await world.upgrade({ UPGRADE_FETCH_TIMEOUT: '2' })
  expect(late).toMatchObject({ code: 0, outcome: 'offline' })
  expect(late.reason).toBe('The remote did not answer within 2 s (`fetchTimeout` allows more)')
  expect(performance.now() - from).toBeLessThan(10_000)
  silent.close()
  await to(`${url}-nowhere`)
  expect(await world.upgrade()).toMatchObject({ code: 1, outcome: 'failed' })
  await to(url)
  expect(await world.state()).toBe(before)
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('A failed check rolls repository, profile and running system back', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  const checks = JSON.stringify(['true', 'echo "a b"\nfalse'])
  const done = await world.upgrade({ UPGRADE_CHECKS: checks, UPGRADE_CHECKS_NA: '["tailscale"]' })
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed', notRestored: [] })
  expect(done.checks).toEqual([
    { command: 'true', result: 'ok' },
    { command: 'echo "a b"\nfalse', result: 'failed' },
    { command: 'tailscale', result: 'n/a' },
  ])
  expect(await world.state()).toBe(before)
  expect(world.read('root/switched').trim().split('\n').slice(-2)).toEqual([
    'switch two',
    'switch one',
  ])
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'skipped-known-bad' })
  // the host can be set to keep the new system
  await world.push('three', { 'text.nix': '"three"' })
  const kept = await world.upgrade({ UPGRADE_CHECKS: checks, UPGRADE_ON_FAILURE: 'notify' })
  expect(kept).toMatchObject({ code: 1, outcome: 'validation-failed' })
  expect(await world.sh('cat /run/current-system/text')).toBe('three')
  // which later runs still say
  const later = await world.upgrade({ UPGRADE_CHECKS: checks, UPGRADE_ON_FAILURE: 'notify' })
  expect(later).toMatchObject({ code: 0, outcome: 'up-to-date' })
  expect(later.reason).toMatch(/; its validation failed: `echo "a b" false` failed$/)
  await world.push('four', { 'text.nix': '"four"' })
  const ignored = await world.upgrade({ UPGRADE_CHECKS: checks, UPGRADE_ON_FAILURE: 'ignore' })
  expect(ignored).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect((await world.upgrade()).reason).not.toContain('validation failed')
})

test('A switch that fails is rolled back', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"switch fails"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({
    code: 1,
    outcome: 'switch-failed',
    phase: 'switch',
    notRestored: [],
  })
  expect(await world.state()).toBe(before)
})

test('The running system is rolled back even if boot entries cannot be written, and the next run writes them', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade({ UPGRADE_CHECKS: '["touch /boot/unwritable; false"]' })
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed' })
  expect(done.notRestored).toEqual(['boot entries'])
  expect(await world.sh('cat /run/current-system/text')).toBe('one')
  await world.sh('rm /boot/unwritable')
  const next = await world.upgrade()
  expect(next).toMatchObject({ code: 0, outcome: 'skipped-known-bad', notRestored: [] })
  expect(next.reason).toContain('recovered from an earlier run that did not end')
  expect(await world.sh('tail -n 1 /root/switched')).toMatch(/^(switch|boot) one$/)
})

test('The user’s own changes in the repository during the run are not rolled back', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  const edit =
    'cd /home/rain/nix-config; setpriv --reuid=1000 --regid=100 --clear-groups env HOME=/home/rain sh -c "echo new >new; jj commit -m new"; false'
  const done = await world.upgrade({ UPGRADE_CHECKS: JSON.stringify([edit]) })
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed' })
  expect(done.notRestored).toEqual(['repository (changed by somebody else since)'])
  expect(await world.rain('cat new; jj log --no-graph -r @- -T description')).toBe('new\nnew')
  expect(await world.sh('cat /run/current-system/text')).toBe('one')
})

test('A failed hook ends the upgrade before anything else', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  const hooks = JSON.stringify(['touch /root/ran', 'exit 3'])
  const done = await world.upgrade({ UPGRADE_HOOKS: hooks })
  expect(done).toMatchObject({ code: 1, outcome: 'failed', phase: 'hooks' })
  expect(done.reason).toBe('The hook `exit 3` failed')
  expect(await world.sh('ls /root/ran')).toBe('/root/ran')
  expect(await world.state()).toBe(before)
})

test('A hook that never ends has a time limit', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  const hooks = JSON.stringify(['sleep 1000', 'touch /root/ran-on'])
  const done = await world.upgrade({ UPGRADE_HOOKS: hooks, UPGRADE_HOOK_LIMIT: '2' })
  expect(done).toMatchObject({ code: 1, outcome: 'failed', phase: 'hooks' })
  expect(done.reason).toBe('The hook `sleep 1000` did not end within 2 s')
  expect(await world.sh('ls /root/ran-on 2>/dev/null || echo none')).toBe('none')
  expect(await world.state()).toBe(before)
})

test('Lack of space on /boot, or in the store, is detected before the switch', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  const small = async (path: string): Promise<Awaited<ReturnType<typeof world.upgrade>>> => {
    // a small file system that only the agent sees
    world.write('root/agent', `mount -t tmpfs -o size=512k tmpfs ${path}\n${agent}`)
    return world.upgrade()
  }
  const boot = await small('/boot')
  expect(boot).toMatchObject({ code: 1, outcome: 'no-space', phase: 'preflight' })
  expect(boot.reason).toBe('/boot has 0 MiB free and 1 MiB are needed')
  expect(boot.said).not.toContain('phase: switch')
  expect(await world.state()).toBe(before)
  // the revision is not blamed for either
  world.write('root/agent', agent)
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('The space that a specialisation needs on /boot counts, too', async () => {
  const special = flake.replace(
    'chmod +x $out/bin/switch-to-configuration',
    'chmod +x $out/bin/switch-to-configuration; mkdir -p $out/specialisation/s; truncate -s 3M $out/specialisation/s/kernel',
  )
  await world.push('special', { 'flake.nix': special })
  world.write('root/agent', `mount -t tmpfs -o size=\${BOOT_SIZE} tmpfs /boot\n${agent}`)
  const env = { UPGRADE_BOOT_MOUNTED: 'true' }
  const small = await world.upgrade({ ...env, BOOT_SIZE: '3M' })
  expect(small).toMatchObject({ outcome: 'no-space', phase: 'preflight' })
  expect(small.reason).toBe('/boot has 3 MiB free and 5 MiB are needed')
  expect(await world.upgrade({ ...env, BOOT_SIZE: '5M' })).toMatchObject({ outcome: 'upgraded' })
})

test('A second run finds the first one running, names its process, and changes nothing', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  const waits =
    'f() { [ "$1" != build ] || { touch /root/at; until [ -e /root/go ]; do sleep 0.1; done; }; }; f'
  const running = world.upgrade({ UPGRADE_PHASE_HOOK: waits })
  await expect.poll(() => existsSync(join(world.dir, 'root/at')), { timeout: 60_000 }).toBe(true)
  // without a nix-daemon, because a second one would replace the first run's
  const second = await world.run(['bash', '-euo', 'pipefail', '/root/agent'], { env: settings })
  expect(second.code).toBe(0)
  expect(second.stdout).toMatch(/locked: nix-local-upgrade \(pid \d+, since .*\) is at work/)
  expect(second.stdout).not.toContain('phase: recover')
  world.write('root/go', '')
  expect(await running).toMatchObject({ outcome: 'upgraded' })
})

test('A running rebuild is not disturbed', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  const before = await world.state()
  const rebuild = world.sh('flock /run/nixos/switch-to-configuration.lock sleep 4')
  await new Promise((resolve) => setTimeout(resolve, 1000))
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 0, outcome: 'locked' })
  await rebuild
  expect(await world.state()).toBe(before)
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

const phases = 'recover hooks dotfiles fetch rebase build preflight switch validate clean done'
test.each(phases.split(' '))(
  'Killed at the start of %s, everything is whole after the next run',
  async (phase) => {
    await world.rain(`echo mine >mine; jj commit -m mine`)
    await world.push('two', { 'text.nix': '"two"' })
    // the hook's parent is timeout(1), whose parent is the upgrade
    const hook = killedIn(phase)
    const killed = await world.upgrade({ UPGRADE_PHASE_HOOK: hook })
    expect(killed.code).toBe(137)
    expect(killed.outcome).toBe(null)
    const done = await world.upgrade()
    expect(done.said).toContain('phase: done')
    expect(done).toMatchObject({ code: 0, notRestored: [] })
    expect(['upgraded', 'up-to-date']).toContain(done.outcome)
    expect(await world.sh('cat /run/current-system/text')).toBe('two')
    expect(await world.sh('readlink -f /nix/var/nix/profiles/system')).toBe(done.to!.toplevel)
    expect(
      await world.rain('cat mine; jj log --no-graph -r "main@origin..@-" -T description'),
    ).toBe('mine\nmine')
    expect(await world.sh('ls /var/lib/nix-local-upgrade')).not.toContain('transaction')
  },
)

test.each([
  ['empty', ''],
  ['zeros', '\\0'.repeat(41)],
  ['cut short', '0123456'],
])('One of the agent’s refs that a power cut left %s is recreated', async (_, content) => {
  await world.rain(`mkdir -p .git/refs/nix-local-upgrade
      for ref in candidate trunk; do printf '${content}' >.git/refs/nix-local-upgrade/$ref; done`)
  const commit = await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded', to: { commit } })
  expect(await world.rain('git rev-parse refs/nix-local-upgrade/candidate')).toBe(commit)
})

test('Lock files that a power cut left do not lock the host out', async () => {
  // from before this boot
  const left = ['index', 'refs/remotes/origin/main', 'refs/nix-local-upgrade/trunk']
  await world.rain(
    `for name in ${left.join(' ')}; do mkdir -p "$(dirname .git/$name)"; touch -d '1 hour ago' .git/$name.lock; done`,
  )
  await world.sh('ln -sfn nowhere /run/booted-system')
  const commit = await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded', to: { commit } })
  expect(await world.rain('find .git -name "*.lock"')).toBe('')
})

test('A lock that a running program holds is not touched', async () => {
  await world.rain('touch .git/index.lock')
  await world.upgrade()
  expect(await world.rain('find .git -name "*.lock"')).toBe('.git/index.lock')
})

test.each(['build', 'switch'])(
  'Build results that a power cut in %s left incomplete are built again',
  async (phase) => {
    await world.push('two', { 'text.nix': '"two"' })
    const next = { build: 'preflight', switch: 'validate' }[phase]!
    const hook = killedIn(next)
    const { to } = await world.upgrade({ UPGRADE_PHASE_HOOK: hook })
    const spoil = `cd ${to!.toplevel}; chmod u+w bin/* text; : >bin/switch-to-configuration; : >text; chmod u-w bin/* text`
    await world.sh(
      `${spoil}; cd /var/lib/nix-local-upgrade; sed -i 's/"bootId":"[^"]*"/"bootId":"another"/' transaction.json`,
    )
    if (phase === 'switch') {
      // golden boots after it, because the trial was not armed yet
      await world.sh(
        'ln -sfn "$(readlink -f /nix/var/nix/profiles/system-1-link)" /run/current-system',
      )
    }
    const done = await world.upgrade()
    expect(await world.sh('echo /nix/var/nix/profiles/system-*-link')).toBe(
      '/nix/var/nix/profiles/system-1-link /nix/var/nix/profiles/system-2-link',
    )
    expect(done.said).toContain(`spoilt by a power cut, and made anew: ${to!.toplevel}`)
    expect(done).toMatchObject({ code: 0, outcome: 'upgraded', notRestored: [] })
    expect(done.to!.toplevel).toBe(to!.toplevel)
    expect(await world.sh('cat /run/current-system/text')).toBe('two')
    expect(await world.sh(`nix-store --verify-path ${to!.toplevel} && echo whole`)).toBe('whole')
  },
)

test('Incomplete dependencies of the system after a power cut are built again', async () => {
  const part = `derivation { name = "lab-part"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo two >$out" ]; }`
  await world.push('two', { 'text.nix': `"\${${part}}"` })
  await world.upgrade({ UPGRADE_PHASE_HOOK: killedIn('preflight') })
  const path = await world.sh('echo /nix/store/*-lab-part')
  await world.sh(
    `chmod u+w ${path}; : >${path}; chmod u-w ${path}; touch -d @1 ${path}
    cd /var/lib/nix-local-upgrade; sed -i 's/"bootId":"[^"]*"/"bootId":"another"/' transaction.json`,
  )
  const done = await world.upgrade()
  expect(done.said).toContain(`spoilt by a power cut, and made anew: ${path}`)
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded', notRestored: [] })
  expect(done.reason).not.toContain('in use')
  expect(await world.sh('cat "$(cat /run/current-system/text)"')).toBe('two')
})

test.each([
  ['in its switch', 'validate', ''],
  [
    'in its rollback, once the profile is back',
    'rollback',
    'nix-env --profile /nix/var/nix/profiles/system --switch-generation 1',
  ],
])(
  'A generation whose upgrade a power cut ended %s does not stay in the profile',
  async (_, phase, more) => {
    const checks = JSON.stringify(phase === 'rollback' ? ['false'] : [])
    await world.push('two', { 'text.nix': '"two"' })
    await world.upgrade({ UPGRADE_PHASE_HOOK: killedIn(phase), UPGRADE_CHECKS: checks })
    await world.sh(`${more}
    ln -sfn "$(readlink -f /nix/var/nix/profiles/system-1-link)" /run/current-system
    cd /var/lib/nix-local-upgrade; sed -i 's/"bootId":"[^"]*"/"bootId":"another"/' transaction.json`)
    // nothing else would remove it from there
    await world.push('three', { 'text.nix': '"three"' })
    await world.upgrade()
    expect(await world.sh('cat /nix/var/nix/profiles/system-*-link/text')).toBe('one\nthree')
  },
)

test('A switch that succeeds without changing anything is a failure', async () => {
  const before = await world.state()
  await world.push('idle', { 'text.nix': '"switch idles"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'switch-failed', notRestored: [] })
  expect(done.reason).toMatch(/succeeded, but \/nix\/store\/\S+ still runs$/)
  expect(await world.state()).toBe(before)
  expect(await world.upgrade()).toMatchObject({ outcome: 'skipped-known-bad' })
})

test('A broken ref of the user’s is a failure, not an unreachable remote', async () => {
  await world.rain(`: >.git/refs/heads/broken`)
  await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'failed', notRestored: [] })
})

test('If a power cut damaged Nix’s cache, the commit is not blamed', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  const spoil = `for cache in ~/.cache/nix/fetcher-cache-*.sqlite; do
    head -c 8192 /dev/urandom >"$cache"; rm -f "$cache"-*; echo "$cache"; done`
  expect(await world.rain(spoil)).toMatch(/fetcher-cache-v\d+\.sqlite$/)
  const done = await world.upgrade()
  expect(done.said).toMatch(/spoilt, and made anew: \S*fetcher-cache/)
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded' })
})

test('Killed after the switch, then the remote is rewound: the next run rolls everything back first', async () => {
  const before = await world.state()
  await world.push('two', { 'text.nix': '"two"' })
  const hook = killedIn('validate')
  await world.upgrade({ UPGRADE_PHASE_HOOK: hook })
  expect(await world.sh('cat /run/current-system/text')).toBe('two')
  // a failing hook ends the run right after the recovery
  const done = await world.upgrade({ UPGRADE_HOOKS: '["false"]' })
  expect(done).toMatchObject({ code: 1, outcome: 'failed', notRestored: [] })
  expect(await world.state()).toBe(before)
})

test('Old generations are removed, but never the golden, the running or the booted one', async () => {
  const deploy = async (text: string): Promise<void> => {
    await world.push(text, { 'text.nix': `"${text}"` })
    await world.upgrade({ UPGRADE_KEEP_GENERATIONS: '1', UPGRADE_KEEP_DAYS: '7' })
  }
  for (const text of ['two', 'three', 'four', 'five']) await deploy(text)
  await world.sh(`
    cd /nix/var/nix
    mkdir -p gcroots; ln -sfn "$(readlink profiles/system-2-link)" gcroots/golden-generation
    ln -sfn "$(readlink profiles/system-3-link)" /run/booted-system
    touch -h -d '8 days ago' profiles/system-[1-5]-link`)
  await deploy('six')
  expect(await world.sh('ls /nix/var/nix/profiles | grep system')).toBe(
    'system\nsystem-2-link\nsystem-3-link\nsystem-6-link',
  )
  // generation four's link and files are gone; golden's files are still there
  expect(await world.sh('cat /nix/store/*/text | sort | tr "\\n" " "')).toBe('six three two')
})

test('A remote flake is followed in the same way', async () => {
  const remote = {
    UPGRADE_MODE: 'remote',
    UPGRADE_REPOSITORY: '/nowhere',
    UPGRADE_FLAKE_URL: 'git+file:///home/rain/config.git',
  }
  await world.sh('git config --global safe.directory "*"')
  const commit = await world.push('two', { 'text.nix': '"two"' })
  const done = await world.upgrade(remote)
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(done.to!.commit).toBe(commit)
  expect(await world.sh('cat /run/current-system/text')).toBe('two')
  expect(await world.upgrade(remote)).toMatchObject({ outcome: 'up-to-date' })
  await world.push('bad', { 'text.nix': '"build fails"' })
  expect(await world.upgrade(remote)).toMatchObject({ code: 1, outcome: 'build-failed' })
  expect(await world.upgrade(remote)).toMatchObject({ code: 0, outcome: 'skipped-known-bad' })
  const ask = 'cd other; git push -qf origin HEAD~2:main; git rev-parse HEAD~2'
  const rewritten = (await world.sh(ask, { user: 'rain' })).trim()
  expect(await world.upgrade(remote)).toMatchObject({ code: 1, outcome: 'diverged' })
  const accepted = await world.upgrade(remote, '--accept', rewritten)
  expect(accepted).toMatchObject({ outcome: 'upgraded', to: { commit: rewritten } })
  expect(await world.upgrade(remote)).toMatchObject({ outcome: 'up-to-date' })
})

test('Other parameters in the URL of a remote flake are kept', async () => {
  await world.sh('git config --global safe.directory "*"')
  await world.push('in a folder', { 'hosts/flake.nix': flake, 'hosts/text.nix': '"of hosts"' })
  const remote = { UPGRADE_MODE: 'remote', UPGRADE_REPOSITORY: '/nowhere' }
  const url = 'git+file:///home/rain/config.git?dir=hosts'
  const done = await world.upgrade({ ...remote, UPGRADE_FLAKE_URL: url })
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(await world.sh('cat /run/current-system/text')).toBe('of hosts')
})

test('A repository may be in any directory', async () => {
  const path = "/home/rain/50% of 'ünïx' ? #1"
  await world.sh(`mv nix-config ${JSON.stringify(path)}`, { user: 'rain' })
  await world.push('two', { 'text.nix': '"two"' })
  const odd = { UPGRADE_REPOSITORY: path }
  expect(await world.upgrade(odd)).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(await world.sh('cat /run/current-system/text')).toBe('two')
  expect(await world.upgrade(odd)).toMatchObject({ outcome: 'up-to-date' })
})

test('A missing repository, or one without jj, is a failure that says so', async () => {
  const nowhere = await world.upgrade({ UPGRADE_REPOSITORY: '/home/rain/no "such" place' })
  expect(nowhere).toMatchObject({ code: 1, outcome: 'failed', phase: 'fetch' })
  expect(nowhere.reason).toBe('No repository at /home/rain/no "such" place')
  const plain = await world.upgrade({ UPGRADE_REPOSITORY: '/home/rain/other' })
  expect(plain).toMatchObject({ code: 1, outcome: 'failed' })
  expect(plain.reason).toBe('/home/rain/other is no colocated jj repository')
  // a run by a user other than root changes nothing
  const { code, stderr } = await world.run(['bash', '-c', 'bash -euo pipefail /home/agent'], {
    user: 'rain',
    env: { UPGRADE_MODE: 'local', UPGRADE_REPOSITORY: '/nowhere', UPGRADE_HOST: 'sorrow' },
    allow: [1],
  })
  expect([code, stderr.trim()]).toEqual([1, 'nix-local-upgrade: Only root may upgrade this host'])
})

test.each([
  ['--accept', 'nix-local-upgrade: --accept needs a commit'],
  ['--acept', 'nix-local-upgrade: Unknown argument `--acept`'],
])(
  'A mistake in the command line (%s) is reported in one line, and nothing is started',
  async (flag, line) => {
    const command = ['bash', '-c', `bash -euo pipefail /root/agent ${flag}`]
    const { code, stderr } = await world.run(command, { env: settings, allow: [2] })
    expect([code, stderr.trim()]).toEqual([2, line])
  },
)

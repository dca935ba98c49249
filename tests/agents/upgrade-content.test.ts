import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { missingForRoot } from './root.ts'
import { agent, makeUpgradeWorld, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
let world: UpgradeWorld
beforeAll(async () => {
  if (!missing) world = await makeUpgradeWorld()
})
beforeEach((context) => {
  if (missing) context.skip(missing)
  world.write('root/agent', agent)
})
afterAll(() => world?.remove())

const upgradeAfter = (prelude: string) => {
  world.write('root/agent', `${prelude}\n${agent}`)
  return world.upgrade()
}
const marked = '<<<<<<< one\na\n=======\nb\n>>>>>>> two'

test('A document that quotes conflict markers is no conflict; a file with a conflict is one until the user accepts it', async () => {
  await world.push('docs', {
    'README.md': `# Conflicts\n\n\`\`\`\n${marked}\n\`\`\`\n`,
    'text.nix': '"docs"',
  })
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'upgraded' })

  const commit = await world.push('left over', {
    'notes/a b.txt': `first\n${marked}\nlast\n`,
    'text.nix': '"left"',
  })
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 1, outcome: 'conflict', reason: 'Conflict in notes/a b.txt' })
  expect(await world.upgrade({}, '--accept', commit)).toMatchObject({ outcome: 'upgraded' })

  // once deployed, the accepted file blocks nothing, even if it is renamed or text is added around the markers
  await world.push('moved', {
    'notes/a b.txt': null,
    'doc.txt': `more\n${marked}\nlast\n`,
    'text.nix': '"moved"',
  })
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'upgraded' })
  await world.push('another', { 'doc.txt': `more\n${marked}\n${marked.replace('a\n', 'c\n')}\n` })
  expect(await world.upgrade()).toMatchObject({ code: 1, outcome: 'conflict' })
  await world.push('resolved', { 'doc.txt': 'resolved\n', 'text.nix': '"resolved"' })
  expect(await world.upgrade()).toMatchObject({ code: 0, outcome: 'upgraded' })
})

test.each([
  ['local', 'color.ui', 'always'],
  ['local', 'grep.patternType', 'fixed'],
  ['local', 'grep.patternType', 'perl'],
  ['remote', 'color.grep', 'always'],
])('In mode %s a conflict is found even if %s is %s', async (mode, name, value) => {
  await world.push('left over', {
    'left.txt': `${marked}\n`,
    'text.nix': `"${mode} ${name} ${value}"`,
  })
  const user = mode === 'local' ? 'rain' : 'root'
  await world.sh(`git config --global ${name} ${value}; git config --global safe.directory '*'`, {
    user,
  })
  const url = 'git+file:///home/rain/config.git'
  const done = await world.upgrade({ UPGRADE_MODE: mode, UPGRADE_FLAKE_URL: url })
  await world.sh(`git config --global --unset ${name}`, { user })
  expect(done).toMatchObject({ code: 1, outcome: 'conflict', reason: 'Conflict in left.txt' })
  await world.push('resolved', { 'left.txt': 'resolved\n', 'text.nix': '"resolved"' })
})

test('A lock that seems older than the boot, because the clock was ahead, stays while a process uses it', async () => {
  const lock = '/home/rain/nix-config/.git/index.lock'
  const asRain = `as_rain() { setpriv --reuid=1000 --regid=100 --clear-groups env HOME=/home/rain "$@"; }`
  const boot = `touch ${lock}; chown 1000:100 ${lock}; ln -sfn nowhere /run/booted-system
    touch -h -d '+1 hour' /run/booted-system`
  const there = (): Promise<string> => world.sh(`ls ${lock} 2>/dev/null || true`)
  // a process that has the lock file open
  await upgradeAfter(`${asRain}; ${boot}; as_rain sh -c 'exec 3>>${lock}; exec sleep 20' & sleep 1`)
  expect(await there()).toBe(lock)
  // git that waits for an editor, and has closed the lock file
  const commit = `as_rain env GIT_EDITOR='sleep 20; false' git -C /home/rain/nix-config commit --allow-empty`
  await upgradeAfter(`${asRain}; rm -f ${lock}; ${commit} >/dev/null 2>&1 & sleep 2; ${boot}`)
  expect(await there()).toBe(lock)
  // no process uses it any more
  const done = await upgradeAfter(boot)
  expect(done.said).toContain(`left by an earlier run, and removed: ${lock}`)
  expect(await there()).toBe('')
  await world.sh('ln -sfn nowhere /run/booted-system; touch -h -d 2020-01-01 /run/booted-system')
})

test('Submodules and Git LFS files are reported as not fetched', async () => {
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'a'.repeat(64)}\nsize 12\n`
  await world.sh(
    `git init -q sub; cd sub; echo '"sub"' >x.nix; git add .; git commit -qm sub; cd ../other; git pull -q
    git -c protocol.file.allow=always submodule --quiet add /home/rain/sub modules/sub
    printf %s '${pointer}' >logo.png; printf %s '"with"' >text.nix; git add .; git commit -qm with; git push -q`,
    { user: 'rain' },
  )
  const done = await world.upgrade()
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(done.reason).toContain(
    '; submodules are not fetched, and are empty in the build: modules/sub; files of Git LFS are not fetched, and are only pointers in the build: logo.png',
  )

  await world.push('used', { 'text.nix': 'import ./modules/sub/x.nix' })
  const used = await world.upgrade()
  expect(used).toMatchObject({ code: 1, outcome: 'build-failed' })
  expect(used.reason).toMatch(
    /^`modules\/sub\/x\.nix` is not in the commit: `modules\/sub` is a submodule, which is not fetched/,
  )
  await world.push('unused', { 'text.nix': '"unused"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })

  // if the flake asks for them, Nix fetches them
  const own = (await world.rain('cat flake.nix')) + '\n# self.lfs = true; self.submodules = true\n'
  await world.push('asked for', { 'flake.nix': own, 'text.nix': '"asked"' })
  const asked = await world.upgrade()
  expect(asked).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(asked.reason).not.toContain('not fetched')
})

test('A flake in a directory of the repository is built from there, and may use files above it', async () => {
  const own = `${await world.rain('cat flake.nix')}\n`.replace('./text.nix', '../../text.nix')
  await world.push('moved', { 'hosts/my nix/flake.nix': own, 'text.nix': '"below"' })
  const env = { UPGRADE_FLAKE_DIRECTORY: 'hosts/my nix' }
  expect(await world.upgrade(env)).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(await world.sh('cat /run/current-system/text')).toBe('below')

  // its own flake.nix asks for submodules, not the one at the top
  const asks = `${own}# self.submodules = true\n`
  await world.sh(
    `git init -q part; cd part; echo '"part"' >x.nix; git add .; git commit -qm part; cd ../other; git pull -q
    git -c protocol.file.allow=always submodule --quiet add /home/rain/part modules/part
    git commit -qm part; git push -q`,
    { user: 'rain' },
  )
  await world.push('asks', { 'hosts/plain/flake.nix': asks, 'text.nix': '"asks"' })
  const plain = await world.upgrade({ UPGRADE_FLAKE_DIRECTORY: 'hosts/plain' })
  expect(plain).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(plain.reason).not.toContain('not fetched')

  await world.push('without', { 'text.nix': '"without"' })
  const none = await world.upgrade({ UPGRADE_FLAKE_DIRECTORY: 'nowhere' })
  expect(none).toMatchObject({ code: 1, outcome: 'build-failed' })
  expect(none.reason).toContain('nowhere')
})

test('A submodule whose remote is gone does not block a flake that does not need it', async () => {
  const file = 'git -c protocol.file.allow=always'
  await world.sh(
    `git init -q one; cd one; echo 1 >x; git add .; git commit -qm 1; cd ../other; git pull -q
    ${file} submodule --quiet add /home/rain/one one; git commit -qm with; git push -q`,
    { user: 'rain' },
  )
  await world.upgrade()
  // the user has checked the submodule out
  await world.rain(`${file} submodule --quiet update --init one`)
  await world.sh(
    `cd one; git commit -q --allow-empty -m 2; cd ../other/one; git pull -q; cd ..; mv ~/one ~/gone
    printf '"next"' >text.nix; git commit -qam next; git push -q`,
    { user: 'rain' },
  )
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('A cause that jj repeats is reported once', async () => {
  // a run that follows a failed one removes its leftovers, so begin with a good one
  await world.upgrade()
  // as if a program were working in the repository
  await world.rain(': >.git/index.lock')
  await world.push('locked', { 'text.nix': '"locked"' })
  const done = await world.upgrade()
  await world.rain('rm .git/index.lock')
  expect(done).toMatchObject({ code: 1, outcome: 'failed' })
  expect(done.reason).toMatch(/index\.lock/)
  // once for the rebase, and once for the part that could not be restored
  expect(done.reason!.match(/os error 17/g)).toHaveLength(2)
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

const object = 'id=$(git rev-parse refs/remotes/origin/main); file=.git/objects/${id:0:2}/${id:2}'
test('A damaged clone is reported, with the command that shows the damage', async () => {
  await world.push('two', { 'text.nix': '"two"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  await world.rain(`${object}; cp -p $file /tmp/object; chmod u+w $file; echo x >$file`)
  await world.push('three', { 'text.nix': '"three"' })
  const done = await world.upgrade()
  await world.rain(`${object}; cp -pf /tmp/object $file`)
  expect(done).toMatchObject({ code: 1, outcome: 'failed', phase: 'fetch' })
  expect(done.reason).toMatch(
    /^Cannot fetch main: .*; the repository is damaged: `git fsck` tells where$/,
  )
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test('An object that a power cut has left empty is fetched again if the remote has it', async () => {
  await world.push('four', { 'text.nix': '"four"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  await world.rain(`${object}; chmod u+w $file; : >$file`)
  await world.push('five', { 'text.nix': '"five"' })
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
  expect(await world.rain('git fsck --connectivity-only 2>&1')).not.toMatch(/missing|error/)
})

test('jj’s error is reported with its causes and the file, but without its hint', async () => {
  await world.rain('echo draft >draft; chmod 0 draft')
  await world.push('more', { 'text.nix': '"more"' })
  const done = await world.upgrade()
  await world.rain('chmod 644 draft; rm draft')
  expect(done).toMatchObject({ code: 1, outcome: 'failed' })
  expect(done.reason).toMatch(
    /^Cannot read the repository: .*: Failed to open file \/home\/rain\/nix-config\/draft: Permission denied/,
  )
  expect(await world.upgrade()).toMatchObject({ outcome: 'upgraded' })
})

test.each([
  ['a tag', 'git tag v1 $(jj log -r @- --no-graph -T commit_id)', 'git tag -d v1'],
  [
    'the user’s setting',
    `jj config set --repo 'revset-aliases."immutable_heads()"' @`,
    `jj config unset --repo 'revset-aliases."immutable_heads()"'`,
  ],
])(
  'Commits that cannot be rebased because of %s stay unchanged, and the reason is reported',
  async (thing, by, end) => {
    await world.rain(`echo ${thing} >one.txt && jj commit -m 'Own, by ${thing}' && ${by}`)
    await world.push(thing, { 'text.nix': `"${thing}"` })
    const own = `jj log --ignore-working-copy -r 'description("Own, by ${thing}")' --no-graph -T commit_id`
    const before = await world.rain(own)
    for (const _ of ['once', 'again']) {
      const { outcome, reason, notRestored } = await world.upgrade()
      expect([outcome, notRestored]).toEqual(['failed', []])
      expect(reason).toMatch(/^Cannot rebase: Commit \w+ is immutable \(by a tag/)
    }
    expect(await world.rain(own)).toBe(before)
    await world.rain(end)
    expect((await world.upgrade()).outcome).toBe('upgraded')
  },
)

test('A file name that jj cannot read is reported', async () => {
  const odd = "$'odd\\377.txt'"
  await world.rain(
    `cd ../other && git pull -q && touch ${odd} && git add -A && git commit -qm odd && git push -q`,
  )
  const { outcome, reason } = await world.upgrade()
  expect([outcome, reason]).toEqual([
    'failed',
    expect.stringContaining(`; rename ${odd}: its name`),
  ])
  await world.rain(`cd ../other && git mv ${odd} even.txt && git commit -qm even && git push -q`)
  await world.push('even', { 'text.nix': '"even"' })
  expect((await world.upgrade()).outcome).toBe('upgraded')
})

/** The output of a run of the agent with `--reboot`, and its calls of systemctl. */
async function reboots(
  window: string,
  first = '',
): Promise<{ said: string; status: object; asked: string }> {
  const model = `printf '#!/bin/sh\\necho "$*" >>/root/asked\\n' >/root/systemctl; chmod +x /root/systemctl; mount --bind /root/systemctl /usr/bin/systemctl`
  world.write('root/agent', `${model}\n${first}\n${agent}`)
  const env = { UPGRADE_ALLOW_REBOOT: 'true', UPGRADE_REBOOT_WINDOW: window }
  const { said, ...status } = await world.upgrade(env, '--reboot')
  const asked = await world.sh('cat asked 2>/dev/null || true; rm -f asked')
  return { said, status, asked }
}
const anotherKernel =
  'mkdir -p /old /new; touch /old/kernel /new/kernel; ln -sfn /old /run/booted-system'

test('A reboot that is due waits for its timer, which reboots only within the window', async () => {
  await world.sh(anotherKernel)
  const at = (minutes: number): string =>
    new Date(Date.now() + minutes * 60_000).toISOString().slice(11, 16)
  const before = world.status()
  const early = await reboots(`${at(60)}-${at(120)}`)
  expect(early.said).toMatch(
    /a reboot is due, and waits for \S+ \(nix-local-upgrade-reboot\.timer\)/,
  )
  expect(early.asked).toBe('')
  const now = `${at(-60)}-${at(60)}`
  // while an upgrade or a switch is running, that takes care of the reboot
  for (const first of [
    'exec 8>>/run/nix-local-upgrade.lock; flock 8',
    "echo '{}' >/var/lib/nix-local-upgrade/transaction.json; trap 'rm /var/lib/nix-local-upgrade/transaction.json' EXIT",
  ]) {
    const busy = await reboots(now, first)
    expect([busy.said, busy.asked]).toEqual([
      expect.stringContaining('at work, or was cut off'),
      '',
    ])
  }
  const due = await reboots(now)
  expect(due.asked).toBe('--no-block reboot')
  // the status still shows the result of the last upgrade
  expect(world.status()).toEqual(before)
})

test('A host that a reboot has started with the old system again is not rebooted repeatedly', async () => {
  await world.sh(anotherKernel)
  const first = await reboots('')
  expect(first.asked).toBe('--no-block reboot')
  // systemd has not rebooted yet, or was prevented from it
  expect((await reboots('')).asked).toBe('--no-block reboot')
  const record = '/var/lib/nix-local-upgrade/rebooted'
  const nextBoot = `sed -i 1s/^./x/ ${record}`
  const again = await reboots('', nextBoot)
  expect(again.said).toMatch(
    /the last reboot for it started another generation: see `bootctl list`/,
  )
  expect(again.asked).toBe('')
  // golden removes a failed trial from the profile, and arms one again that was never started
  const golden = '/var/lib/golden-generation'
  const judged = `mkdir -p ${golden}; : >${golden}/golden.json; trap 'rm ${golden}/golden.json' EXIT`
  expect((await reboots('', `${nextBoot}; ${judged}`)).asked).toBe('--no-block reboot')
  // with another generation, or another default, the reboot may succeed
  for (const other of ['2s/$/x/', '3s/$/x/'])
    expect((await reboots('', `sed -i '1s/^./x/; ${other}' ${record}`)).asked).toBe(
      '--no-block reboot',
    )
})

import { createServer as createWebServer } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { lines, makeDotfiles, makeHost, quote } from './dotfiles.ts'
import { type ScratchRoot, useRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))

const ten = lines(...Array.from({ length: 10 }, (_, i) => `line ${i}`))

test('Edits in $HOME and in the source reach the other host: other files, other lines, permissions', async () => {
  const { sorrow, torment, both, atRemote } = await makeDotfiles(root, {
    '.a': ten,
    '.b': ten,
    '.tool': '#!/bin/sh\n',
  })
  await sorrow.sh(
    'sed -i s/line.1/sorrow/ .a; echo new >.local/share/chezmoi/dot_new; chmod +x .tool',
  )
  await torment.sh('sed -i s/line.8/torment/ .local/share/chezmoi/dot_a; echo more >>.b')
  const first = await sorrow.sync()
  expect(first).toMatchObject({ outcome: 'synced', code: 0, applied: ['.new'], kept: [] })
  expect(first.captured.toSorted()).toEqual(['.a', '.tool'])
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.b'] })
  expect(await sorrow.sync()).toMatchObject({
    outcome: 'synced',
    captured: [],
    applied: ['.a', '.b'],
  })
  for (const file of ['.a', '.b', '.new']) {
    const [one, other] = await both(file)
    expect(one).toBe(other)
  }
  expect((await both('.a'))[0]).toMatch(/sorrow[^]*torment/)
  expect(await torment.sh('stat -c %A .tool')).toBe('-rwxr-xr-x')
  expect(await atRemote('git log --format=%s main')).toContain('Dotfiles of torment: dot_a dot_b')
  expect(await sorrow.sync()).toMatchObject({ outcome: 'up-to-date', reason: null })
})

test('An offline run succeeds, applies edits of the source, and catches up later', async () => {
  const { sorrow, torment, both, remote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('sed -i s/line.1/sorrow/ .a')
  await sorrow.sync()
  await torment.sh(`mv ${remote} ${remote}.away
    sed -i s/line.8/torment/ .a; echo source >>.local/share/chezmoi/dot_b`)
  const offline = await torment.sync()
  expect(offline).toMatchObject({ outcome: 'offline', code: 0, captured: ['.a'], applied: ['.b'] })
  expect(offline.reason).toMatch(/not (appear|exist)|repository/)
  await torment.sh(`echo again >>.b; mv ${remote}.away ${remote}`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.b'] })
  await sorrow.sync()
  const [a, b] = [await both('.a'), await both('.b')]
  expect(a[0]).toBe(a[1])
  expect(a[0]).toMatch(/sorrow[^]*torment/)
  expect(b[0]).toBe(`${ten}source\nagain`)
  expect(b[1]).toBe(b[0])
})

test('A remote that accepts the connection and never answers is given up at the time limit', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  const server = createServer(() => undefined).listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  const before = Date.now()
  const { outcome, reason } = await sorrow.sync({
    CHEZMOI_NETWORK_LIMIT: '3',
    CHEZMOI_REPO_URL: `git://127.0.0.1:${port}/x.git`,
  })
  expect(outcome).toBe('offline')
  expect(reason).toBe('No end within 3 s (`networkTimeout` allows more)')
  expect(Date.now() - before).toBeLessThan(30_000)
})

test('A push that fails because of the network is no failure, and the next run makes up for it', async () => {
  const { sorrow, remote, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  const hook = `${remote}/hooks/pre-receive`
  await sorrow.sh(`printf '#!/bin/sh\nsleep 60\n' >${hook}; chmod +x ${hook}
    sed -i s/line.1/sorrow/ .a; echo source >>.local/share/chezmoi/dot_b`)
  const slow = await sorrow.sync({ CHEZMOI_NETWORK_LIMIT: '5' })
  expect(slow).toMatchObject({
    outcome: 'offline',
    code: 0,
    reason: 'No end within 5 s (`networkTimeout` allows more)',
    captured: ['.a'],
    applied: ['.b'],
  })
  expect(await atRemote('git show main:dot_a')).not.toContain('sorrow')
  await sorrow.sh(`printf '#!/bin/sh\necho not today; exit 1\n' >${hook}`)
  expect(await sorrow.sync()).toMatchObject({
    outcome: 'failed',
    reason:
      'Cannot push: Failed to push some bookmarks: pre-receive hook declined (the remote says: not today)',
  })
  await sorrow.sh(`rm ${hook}`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', code: 0 })
  expect(await atRemote('git show main:dot_a')).toContain('sorrow')
})

test('A file older than the dotfiles, an edited template and a deleted file are left alone, and named', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten, '.gone': 'x\n' })
  await sorrow.sh(`echo '{{ .chezmoi.username }} ok' >.local/share/chezmoi/dot_t.tmpl
    echo theirs >.local/share/chezmoi/dot_own`)
  await sorrow.sync()
  await torment.sh('echo mine >.own')
  expect(await torment.sync()).toMatchObject({
    outcome: 'synced',
    applied: ['.t'],
    kept: [{ file: '.own', reason: 'was here before the dotfiles' }],
  })
  await torment.sh('echo edit >>.t; rm .gone')
  await sorrow.sh(
    `echo '{{ .chezmoi.username }} new' >.local/share/chezmoi/dot_t.tmpl; echo y >.gone`,
  )
  await sorrow.sync()
  const { kept, outcome } = await torment.sync()
  expect(outcome).toBe('synced')
  expect(kept.toSorted((a, b) => a.file.localeCompare(b.file))).toEqual([
    { file: '.gone', reason: 'deleted here' },
    { file: '.own', reason: 'was here before the dotfiles' },
    { file: '.t', reason: 'a template, edited here' },
  ])
  expect(await torment.sh('cat .own .t; ls .gone 2>&1 || true')).toMatch(
    /^mine\nrain ok\nedit\nls:/,
  )
})

test('Binary files and files above a megabyte reach the other host whole', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('head -c 3000000 /dev/urandom >.big; chezmoi add .big')
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced' })
  await torment.sync()
  const sum = 'sha256sum <.big'
  expect(await torment.sh(sum)).toBe(await sorrow.sh(sum))
})

test('A file that is edited during a run is not overwritten, and is captured by the same run', async () => {
  const { sorrow, torment, both } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('sed -i s/line.1/sorrow/ .a')
  await sorrow.sync()
  await torment.sh(`cat >hook <<'END'
#!/bin/sh
if [ "$1" = apply ] && ! grep -q late ~/.a; then sed -i s/line.8/late/ ~/.a; fi
END
chmod +x hook`)
  const { outcome, captured } = await torment.sync({ CHEZMOI_PHASE_HOOK: `${torment.home}/hook` })
  expect({ outcome, captured }).toEqual({ outcome: 'synced', captured: ['.a'] })
  await sorrow.sync()
  const [one, other] = await both('.a')
  expect(one).toBe(other)
  expect(one).toMatch(/sorrow[^]*late/)
})

test('Merging an edit made during a run touches no other file of the source', async () => {
  const { sorrow, torment, both, atRemote } = await makeDotfiles(root, { '.a': ten, '.a.new': 'n' })
  await sorrow.sh('sed -i s/line.1/sorrow/ .a')
  await sorrow.sync()
  const hook = 'if [ "$1" = rebase ]; then sed -i s/line.8/late/ ~/.a; fi'
  await torment.sh(`printf '#!/bin/sh\n%s\n' '${hook}' >hook; chmod +x hook`)
  expect(await torment.sync({ CHEZMOI_PHASE_HOOK: `${torment.home}/hook` })).toMatchObject({
    outcome: 'synced',
    captured: ['.a'],
  })
  await sorrow.sync()
  expect((await both('.a'))[0]).toMatch(/sorrow[^]*late/)
  expect(await atRemote('git ls-tree --name-only main')).toBe('dot_a\ndot_a.new')
})

test('A second run says which process holds the lock, and changes nothing', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('echo edit >>.a')
  const holder = sorrow.sh('flock .local/state/chezmoi-sync/lock sh -c "touch held; sleep 4"')
  await sorrow.sh('until [ -e held ]; do sleep 0.1; done')
  const before = await sorrow.sh('cat .local/state/chezmoi-sync/status.json')
  const { code, output } = await sorrow.sync()
  expect(code).toBe(0)
  expect(output).toMatch(/locked: Another run has not ended yet \(process \d+\)/)
  expect(await sorrow.sh('cat .local/state/chezmoi-sync/status.json')).toBe(before)
  await holder
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
})

test('A process that an apply script starts does not inherit the lock, and may outlive the run', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh(
    `printf '#!/bin/sh\nls -l /proc/$$/fd >~/open\n' >.local/share/chezmoi/run_start.sh`,
  )
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced' })
  const open = await sorrow.sh('cat open')
  expect(open).toContain('start.sh')
  expect(open).not.toContain('lock')
})

test('A process that git starts to watch the source does not hold the lock', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh(`printf '#!/bin/sh\nsetsid sleep 1000 >/dev/null 2>&1 &\nprintf "token\\\\0/\\\\0"\n' >watch; chmod +x watch
    git config --global core.fsmonitor ~/watch; git config --global core.fsmonitorHookVersion 2
    echo new >.local/share/chezmoi/dot_new`)
  // in one entry of the root, whose processes all end with it
  const ran =
    await sorrow.sh(`${['', '-'].map((n) => `bash -euo pipefail /tmp/chezmoi-sync.sh >said${n} 2>&1`).join('; ')}
    pgrep sleep || true; tail -n 1 said-`)
  expect(ran).toBe('chezmoi-sync: up-to-date')
})

test.each(['capture', 'commit', 'fetch', 'rebase', 'push', 'publish', 'apply'])(
  'Killed as it enters %s, nothing is lost and the next run completes',
  async (phase) => {
    const { sorrow, torment, both } = await makeDotfiles(root, { '.a': ten, '.b': ten })
    await sorrow.sh('sed -i s/line.1/sorrow/ .a')
    await sorrow.sync()
    await torment.sh(`sed -i s/line.8/torment/ .a; echo source >>.local/share/chezmoi/dot_b
      printf '#!/bin/sh\\n[ $1 != ${phase} ] || kill -9 $PPID\\n' >hook; chmod +x hook`)
    const killed = await torment.sync({ CHEZMOI_PHASE_HOOK: `${torment.home}/hook` })
    expect(killed).toMatchObject({ code: 137, phase, outcome: null })
    expect(await torment.sync()).toMatchObject({
      outcome: expect.stringMatching('synced|up-to-date'),
    })
    await sorrow.sync()
    const [one, other] = await both('.a')
    expect(one).toBe(other)
    expect(one).toMatch(/sorrow[^]*torment/)
    expect(await both('.b')).toEqual([`${ten}source`, `${ten}source`])
  },
)

test('A process that a chezmoi hook leaves running does not hold a run up', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh(`mkdir -p .config/chezmoi; cat >.config/chezmoi/chezmoi.toml <<'END'
[hooks.read-source-state.pre]
command = "sh"
args = ["-c", "ls -l /proc/$$/fd >>~/open"]
END
    echo edit >>.a`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  const open = await sorrow.sh('cat open')
  expect(open).toMatch(/ 3 -> /)
  // a reader of the pipe would wait until every process has closed it
  expect(open).not.toMatch(/ 3 -> pipe:/)
})

test('Every user has their own state, root too', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  const env = { CHEZMOI_STATE: '/var/lib/chezmoi-sync' }
  await root.sh(`install -d -o 1000 -g 100 ${env.CHEZMOI_STATE}`)
  await sorrow.sync(env)
  const look = `cd ${env.CHEZMOI_STATE}; stat -c '%n %U' *; cat *`
  const before = await root.sh(look)
  expect(before).toContain('up-to-date')
  expect(await root.sh('bash -euo pipefail /tmp/chezmoi-sync.sh 2>&1', { env })).toMatch(
    /skipped: No dotfiles at \/root\//,
  )
  expect(await root.sh(look)).toBe(before)
  expect(await root.sh('bash -euo pipefail /tmp/chezmoi-status.sh', { env })).toMatch(
    /^outcome: +skip/,
  )
})

test('If the unit’s state directory is not writable, all programs use the directory that the sync used', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  const env = { CHEZMOI_STATE: '/var/lib/chezmoi-full' }
  await root.sh(`install -d -o 1000 -g 100 -m 555 ${env.CHEZMOI_STATE}`)
  expect(await sorrow.sync(env)).toMatchObject({ outcome: 'up-to-date' })
  const ask = `CHEZMOI_STATE=${env.CHEZMOI_STATE} bash -euo pipefail /tmp/chezmoi-status.sh`
  expect(await sorrow.sh(ask)).toMatch(/^outcome: +up-to-date/)
})

test('Before the first sync there is no status, and the programs handle that', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  const status =
    'rm -f .local/state/chezmoi-sync/status.json; bash -euo pipefail /tmp/chezmoi-status.sh'
  expect(await sorrow.sh(status)).toBe('Dotfiles have not been synchronized yet')
  expect(await sorrow.sh(`${status} --json | jq '.outcome'`)).toBe('null')
  expect(await sorrow.sh(`${status} --nope 2>&1 || echo $?`)).toMatch(/^Usage: .*\n2$/)
})

test.each(['status', 'show-conflicts'])(
  'A process left by a chezmoi hook does not hold up chezmoi-%s or add to its output, and an endless hook is stopped',
  async (name) => {
    const { sorrow } = await makeDotfiles(root, { '.a': ten })
    const ask = `echo edit >.a; bash -euo pipefail /tmp/chezmoi-${name}.sh 2>&1 | cat`
    const plain = await sorrow.sh(ask)
    const hook = (script: string): Promise<string> =>
      sorrow.sh(`mkdir -p .config/chezmoi
      for event in read-source-state source-path target-path status; do
        printf '[hooks.%s.pre]\ncommand = "sh"\nargs = ["-c", "%s"]\n' "$event" ${JSON.stringify(script)}
      done >.config/chezmoi/chezmoi.toml`)
    await hook('echo noise; echo noise >&2; sleep 900 &')
    expect(await sorrow.sh(`timeout 200 bash -c ${quote(ask)}`)).toBe(plain)
    await hook('sleep 900')
    const limited = `CHEZMOI_LIMIT=2 timeout 200 bash -c ${quote(ask)} || true`
    expect(await sorrow.sh(limited)).toMatch(/No end within 2 s/)
  },
)

test('Lock files that a power cut left in the source do not lock the host out', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  // the present boot is later than they are
  await root.sh('ln -sfn nowhere /run/booted-system')
  await torment.sh(`cd .local/share/chezmoi
    for name in index refs/remotes/origin/main; do touch -d '1 hour ago' .git/$name.lock; done`)
  await sorrow.sh('echo late >>.a')
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({ code: 0, outcome: 'synced' })
  expect(await torment.sh('tail -n 1 .a; find .local/share/chezmoi -name "*.lock"')).toBe('late')
})

test('If a power cut emptied chezmoi’s state, a new one is begun, and no edit is lost with it', async () => {
  const { sorrow, torment, both } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  const state = '.config/chezmoi/chezmoistate.boltdb'
  await sorrow.sh(`echo mine >>.b; truncate -s 0 ${state}`)
  await torment.sh('echo theirs >>.b')
  await torment.sync()
  const { outcome, kept } = await sorrow.sync()
  expect([outcome, kept.map(({ file }) => file)]).toEqual(['synced', ['.b']])
  expect(await both('.b')).toEqual([`${ten}mine`, `${ten}theirs`])
  await sorrow.sh(`head -c 65536 /dev/zero >${state}`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'up-to-date' })
  // a damaged state that is not empty is kept for the user to inspect
  await sorrow.sh(`echo text >${state}`)
  const { outcome: failed, reason } = await sorrow.sync()
  expect([failed, reason]).toEqual([
    'failed',
    expect.stringMatching(/invalid database; once it is/),
  ])
  expect(await sorrow.sh(`cat ${state}`)).toBe('text')
})

test('A working copy that jj is told not to change is left alone, and the reason is reported', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  await torment.sh('echo theirs >>.a')
  await torment.sync()
  const heads = `--repo 'revset-aliases."immutable_heads()"'`
  await sorrow.sh(`cd .local/share/chezmoi; jj config set ${heads} @`)
  const { outcome, reason } = await sorrow.sync()
  expect([outcome, reason]).toEqual([
    'failed',
    expect.stringMatching(/immutable_heads\(\).*`jj new`/),
  ])
  expect(await sorrow.sh('cat .a')).toBe(ten.trim())
  await sorrow.sh(`cd .local/share/chezmoi; jj config unset ${heads}`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', applied: ['.a'] })
})

test('A file name that jj cannot read is reported, and once it is renamed the host goes on', async () => {
  const { torment, atRemote, both } = await makeDotfiles(root, { '.a': ten })
  const odd = "$'dot_\\377'"
  const commit = `git worktree add -q /tmp/odd main && cd /tmp/odd && git config user.name x && git config user.email x@x`
  await atRemote(`${commit} && echo odd >${odd} && git add -A && git commit -qm odd`)
  await torment.sh('echo mine >>.a')
  const { outcome, reason } = await torment.sync()
  expect([outcome, reason]).toEqual([
    'failed',
    expect.stringContaining(`; rename ${odd}: its name`),
  ])
  await atRemote(
    `cd /tmp/odd && git mv ${odd} dot_even && git commit -qm even; git worktree remove --force /tmp/odd`,
  )
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: ['.even'] })
  expect((await both('.a'))[1]).toBe(`${ten}mine`)
})

test('A run that cannot write its status does not succeed', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('cd .local/state/chezmoi-sync; rm status.json; mkdir status.json')
  const ran = await sorrow.sync()
  expect(ran).toMatchObject({ code: 1, output: expect.stringContaining('cannot write') })
  await sorrow.sh('rmdir .local/state/chezmoi-sync/status.json')
  expect(await sorrow.sync()).toMatchObject({ code: 0, outcome: 'up-to-date' })
})

test('With commits or pushes turned off, edits stay on this host', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten })
  const tip = await atRemote('git rev-parse main')
  await sorrow.sh('sed -i s/line.1/sorrow/ .a')
  expect(await sorrow.sync({ CHEZMOI_AUTO_COMMIT: 'false' })).toMatchObject({ captured: ['.a'] })
  expect(await sorrow.sync({ CHEZMOI_AUTO_PUSH: 'false' })).toMatchObject({ outcome: 'up-to-date' })
  expect(await atRemote('git rev-parse main')).toBe(tip)
  await torment.sh('sed -i s/line.8/torment/ .a')
  await torment.sync()
  expect(await sorrow.sync({ CHEZMOI_AUTO_PUSH: 'false' })).toMatchObject({ applied: ['.a'] })
  expect(await sorrow.sh('cat .a')).toMatch(/sorrow[^]*torment/)
  expect(await atRemote('git show main:dot_a')).not.toContain('sorrow')
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced' })
  expect(await atRemote('git show main:dot_a')).toMatch(/sorrow[^]*torment/)
})

test('Commands in templates find the user’s runtime directory, if there is a session', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': ten })
  await root.sh('mkdir -p /run/user/1000')
  onTestFinished(async () => void (await root.sh('rm -r /run/user')))
  await sorrow.sh(`printf '[{{ env "XDG_RUNTIME_DIR" }}]' >.local/share/chezmoi/dot_run.tmpl`)
  for (const [command, env, found] of [
    ['chown root', {}, ''],
    ['chown rain', {}, '/run/user/1000'],
    ['chown rain', { XDG_RUNTIME_DIR: '/tmp' }, '/tmp'],
  ] as const) {
    await root.sh(`${command} /run/user/1000`)
    expect(await sorrow.sync(env)).toMatchObject({ code: 0, applied: ['.run'] })
    expect(await sorrow.sh('cat .run')).toBe(`[${found}]`)
  }
})

test('A user’s script that never ends is stopped, and the next run catches up', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh(`printf '#!/bin/sh\n[ -e ~/go ] || sleep 1000\n' >.local/share/chezmoi/run_hangs.sh
    sed -i s/line.1/sorrow/ .a`)
  await sorrow.sh('touch go')
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced' })
  const hung = await torment.sync({ CHEZMOI_APPLY_LIMIT: '3' })
  expect(hung).toMatchObject({ outcome: 'failed', reason: 'Cannot apply: no end within 3 s' })
  await torment.sh('touch go')
  expect(await torment.sync()).toMatchObject({ code: 0 })
  expect(await torment.sh('cat .a')).toContain('sorrow')
})

test('Without a URL nothing is cloned, a missing branch is named, and a clone without jj is adopted', async () => {
  const { remote, sorrow } = await makeDotfiles(root, { '.a': ten })
  const fresh = makeHost(root, 'fresh', `${sorrow.home}/../fresh`, remote)
  await sorrow.sh('mkdir ../fresh')
  expect(await fresh.sync({ CHEZMOI_REPO_URL: '' })).toMatchObject({ outcome: 'skipped', code: 0 })
  expect(await fresh.sync({ CHEZMOI_REPO_URL: `${remote}.not` })).toMatchObject({
    outcome: 'offline',
  })
  await fresh.sh(`git clone -q ${remote} .local/share/chezmoi; cp .local/share/chezmoi/dot_a .a`)
  expect(await fresh.sync({ CHEZMOI_BRANCH: 'simple' })).toMatchObject({
    outcome: 'failed',
    reason: 'The remote has no branch `simple` (it has main)',
  })
  await fresh.sh('chezmoi apply; echo edit >>.a')
  expect(await fresh.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  await sorrow.sync()
  expect(await sorrow.sh('tail -n 1 .a')).toBe('edit')
})

test('A trunk that was rewritten is refused until the user decides about it', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('echo secret >>.a')
  await sorrow.sync()
  await torment.sync()
  await atRemote('git update-ref refs/heads/main main~1')
  await torment.sh('sed -i s/line.1/torment/ .a')
  for (const _ of [1, 2])
    expect(await torment.sync()).toMatchObject({
      outcome: 'diverged',
      code: 1,
      reason: expect.stringContaining('The trunk was rewritten'),
    })
  expect(await atRemote('git show main:dot_a')).not.toMatch(/secret|torment/)
  // no matter whether the dropped commits were another host's or its own
  for (const host of [torment, sorrow]) {
    const { outcome, reason } = await host.sync()
    expect(outcome).toBe('diverged')
    const told = /in (\S+): `(.*)`$/.exec(reason!)
    await host.sh(
      `cd ${told?.[1]}; export JJ_USER=rain JJ_EMAIL=rain@${host.name}; ${told?.[2]} 2>&1`,
    )
    expect(await host.sync()).toMatchObject({ outcome: 'synced' })
    expect(await host.sh('cat .a')).toBe(ten.replace('line 1', 'torment').trimEnd())
  }
})

test.each([
  [
    'by a rule',
    'echo "error: GH006: Protected branch update failed"; exit 1',
    /declined \(the remote says: GH006: Protected branch update failed\)$/,
  ],
  [
    'for lack of space',
    'echo "fatal: write error: No space left on device"; exit 1',
    /; the remote cannot use its own repository: look at its disk there/,
  ],
])(
  'A push that the remote refuses %s: the remote’s message and the cause are reported',
  async (_, hook, reason) => {
    const { sorrow, torment, remote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
    await torment.sh('echo torment >>.b')
    await torment.sync()
    await sorrow.sh(`printf '#!/bin/sh\n%s\n' '${hook}' >${remote}/hooks/pre-receive
    chmod +x ${remote}/hooks/pre-receive; echo edit >>.a`)
    const ran = await sorrow.sync()
    // a host that cannot push still applies what others have pushed
    expect(ran).toMatchObject({ outcome: 'failed', captured: ['.a'], applied: ['.b'] })
    expect(ran.reason).toMatch(reason)
  },
)

test('The user’s chezmoi settings do not keep an edit from being published', async () => {
  const { sorrow, torment, both } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('echo trunk >>.b')
  await sorrow.sync()
  await torment.sh(`mkdir -p .config/chezmoi; cat >.config/chezmoi/chezmoi.toml <<'END'
verbose = true
interactive = true
color = true
[git]
autoCommit = true
autoPush = true
[hooks.read-source-state.pre]
command = "echo"
args = ["hello"]
END
    git config --global user.name x; git config --global user.email x; echo edit >>.a; chmod +x .a`)
  expect(await torment.sync()).toMatchObject({
    outcome: 'synced',
    captured: ['.a'],
    applied: ['.b'],
  })
  await sorrow.sync()
  expect(await both('.a')).toEqual(Array(2).fill(`${ten}edit`))
  await torment.sh('echo "= [" >.config/chezmoi/chezmoi.toml')
  expect(await torment.sync()).toMatchObject({
    outcome: 'failed',
    reason: expect.stringMatching(/^Cannot find the dotfiles: .*invalid config: .*chezmoi\.toml/),
  })
})

test('An edit is captured where chezmoi is set to commit, whatever template git has for new repositories', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': ten })
  await torment.sh(`mkdir -p .config/chezmoi empty; printf '[git]\nautoCommit = true\n' >.config/chezmoi/chezmoi.toml
    git config --global init.templateDir ~/empty; git config --global user.useConfigOnly true; echo edit >>.a`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  expect(await atRemote('git show main:dot_a')).toBe(`${ten}edit`)
})

test('jj settings that wrap lines neither keep a run from rolling back nor break a commit’s header', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await torment.sh('echo torment >>.b')
  await torment.sync()
  await sorrow.sh(`jj config set --user ui.log-word-wrap true; jj config set --user user.name s; jj config set --user user.email s@s; cd .local/share/chezmoi
    for i in 1 2 3 4 5 6; do echo here >>dot_file_with_a_long_name_$i; done; jj commit --quiet -m Here
    jj git fetch --quiet; before=$(jj op log --no-graph --limit 1 -T id)
    { echo $before; git rev-parse origin/main; } >~/.local/state/chezmoi-sync/step
    jj rebase --quiet -b @ -o main@origin`)
  // like a run that was interrupted in a rebase
  const { outcome, output } = await sorrow.sync()
  expect(outcome, output).toBe('synced')
  expect(await sorrow.sh('cd .local/share/chezmoi; jj op log --no-graph -T description')).toContain(
    'restore to operation',
  )
  await sorrow.sh(
    'cd .local/share/chezmoi; for i in 1 2 3 4 5 6; do echo more >>dot_file_with_a_long_name_$i; done',
  )
  await sorrow.sync()
  expect(await atRemote('git log -1 --format=%s main')).toMatch(
    /^Dotfiles of sorrow: dot_\S+_1 .* dot_\S+_6$/,
  )
})

test('Every file that chezmoi refuses or cannot handle is named, and blocks no other file', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, {
    '.a': ten,
    '.b': ten,
    '.key': 'k\n',
  })
  await sorrow.sh(`cd .local/share/chezmoi; echo trunk >>dot_b
    for code in 3 4 0; do printf '#!/bin/sh\nexit %s\n' $code >run_once_$code.sh; done`)
  const failed = await sorrow.sync()
  expect(failed).toMatchObject({ outcome: 'failed', applied: ['.b', '0.sh'] })
  expect(failed.reason).toBe('Cannot apply 3.sh: exit status 3; 4.sh: exit status 4')
  await torment.sh(`mkdir -p .config/chezmoi; printf '[add]\nsecrets = "error"\n' >.config/chezmoi/chezmoi.toml
    echo edit >>.a; echo 'x = "ghp_aBcD1234eFgH5678iJkL9012mNoP3456qRsT"' >>.key`)
  const refused = await torment.sync()
  expect(refused).toMatchObject({ outcome: 'failed', captured: ['.a'], applied: ['.b', '0.sh'] })
  expect(refused.reason).toMatch(/^Cannot capture \.key: .*GitHub Personal Access Token/)
  expect(await atRemote('git show main:dot_a')).toBe(`${ten}edit`)
  expect(await torment.sh('wc -l <.key')).toBe('2')
})

test('A file that chezmoi refuses is not captured by a merge with the trunk either, and not published as a conflict', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh(`sed -i '1s/.*/trunk/' .a; echo trunk >>.b`)
  await sorrow.sync()
  await torment.sh(`mkdir -p .config/chezmoi; printf '[add]\nsecrets = "error"\n' >.config/chezmoi/chezmoi.toml
    for file in .a .b; do echo 'x = "ghp_aBcD1234eFgH5678iJkL9012mNoP3456qRsT"' >>$file; done`)
  await torment.sync()
  // the source already has the trunk's text
  const refused = await torment.sync()
  expect(refused).toMatchObject({ outcome: 'failed', captured: [], conflicts: [] })
  expect(refused.reason).toMatch(/^Cannot capture \.a: .*Token.*; \.b: .*Token/)
  expect(await atRemote('git log -p --all')).not.toContain('ghp_')
})

test('A file that takes chezmoi too long to examine is named, and blocks no other file', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten, '.large': 'x\n' })
  await torment.sh(`mkdir slow; cat >slow/chezmoi <<'END'
#!/bin/sh
case "$*" in *re-add*.large*) echo >>~/starts; grep -q ignore ~/.config/chezmoi/chezmoi.toml || exec sleep 60 ;; esac
exec /usr/bin/chezmoi "$@"
END
    chmod +x slow/chezmoi; for name in a b large; do echo edit >>.$name; done`)
  const slow = { PATH: `${torment.home}/slow:/usr/local/bin:/usr/bin`, CHEZMOI_LIMIT: '10' }
  const ran = await torment.sync(slow)
  expect(ran).toMatchObject({ outcome: 'failed', captured: ['.a', '.b'] })
  expect(ran.reason).toMatch(/^Cannot capture \.large: No end within 10 s \(.*`secrets = "ignore"`/)
  expect(await torment.sh('wc -l <starts')).toBe('2')
  expect(await atRemote('git show main:dot_b')).toBe(`${ten}edit`)
  await torment.sh(
    `mkdir -p .config/chezmoi; printf '[add]\nsecrets = "ignore"\n' >.config/chezmoi/chezmoi.toml`,
  )
  expect(await torment.sync(slow)).toMatchObject({ outcome: 'synced', captured: ['.large'] })
})

test('A source that is missing where .chezmoiroot points is named, and not cloned again', async () => {
  const { torment, remote } = await makeDotfiles(root, { '.a': ten })
  await torment.sh(
    `git clone -q ${remote} hand; cd hand; git config user.name x; git config user.email x`,
  )
  const publish = (script: string): Promise<string> =>
    torment.sh(`cd hand; ${script}; git add .; git commit -qm hand; git push -q origin HEAD:main`)
  await publish('mkdir home; git mv dot_a home; echo hoem >.chezmoiroot')
  for (const _ of [1, 2])
    expect(await torment.sync()).toMatchObject({
      outcome: 'failed',
      reason: expect.stringContaining('/hoem does not exist, although .chezmoiroot names it'),
    })
  expect(await torment.sh('ls -d home .local/share/chezmoi/hoem 2>&1 || true')).not.toMatch(
    /^[^l]/m,
  )
  await publish('echo home >.chezmoiroot; echo more >>home/dot_a')
  await torment.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'up-to-date' })
  expect(await torment.sh('cat .a')).toBe(`${ten}more`)
})

test('An external that cannot be fetched stays unchanged, and blocks nothing else', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  let code = 200
  const server = createWebServer((_, answer) => {
    answer.statusCode = code
    answer.end('text\n')
  }).listen(0, '127.0.0.1')
  const close = (): void => {
    server.closeAllConnections()
    server.close()
  }
  onTestFinished(close)
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await sorrow.sh(`cat >.local/share/chezmoi/.chezmoiexternal.toml <<END
[".ext"]
type = "file"
url = "http://127.0.0.1:${port}/x"
refreshPeriod = "1s"
END`)
  for (const host of [sorrow, torment]) await host.sync()
  await sorrow.sh('echo trunk >>.b')
  code = 404
  await sorrow.sync()
  await torment.sh('sleep 1.5; echo edit >>.a')
  const gone = await torment.sync()
  expect(gone).toMatchObject({ outcome: 'failed', captured: ['.a'], applied: ['.b'] })
  expect(gone.reason).toMatch(/^Cannot apply an external, which stays as it was: .*404/)
  expect(await atRemote('git show main:dot_a')).toBe(`${ten}edit`)
  // an external that may be reachable in an hour is no failure
  close()
  await torment.sh('echo again >>.a')
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  expect(await torment.sh('cat .ext')).toBe('text')
})

test('An edit of an external does not count as an edit of a source file with the same name', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(`mkdir part; echo part >part/README; tar -cf part.tar -C part .
    cd .local/share/chezmoi; echo whole >README; echo README >.chezmoiignore
    printf '%s\n' '[".part"]' 'type = "archive"' "url = \\"file://$HOME/part.tar\\"" >.chezmoiexternal.toml`)
  expect((await torment.sync()).applied).toEqual(['.part', '.part/README'])
  await torment.sh('echo mine >>.part/README')
  expect(await torment.sync()).toMatchObject({
    outcome: 'up-to-date',
    kept: [{ file: '.part/README', reason: 'of an external, edited here' }],
  })
  expect(await atRemote('git for-each-ref --format="%(refname)"')).toBe('refs/heads/main')
})

test.each([
  ['each commit', 'jj config set --user signing.behavior own'],
  ['what is pushed', 'jj config set --user git.sign-on-push true'],
])('If signing %s needs a passphrase, edits are published unsigned', async (_, setting) => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await torment.sh(`ssh-keygen -q -t ed25519 -N secret -f key; jj config set --user signing.backend ssh
    jj config set --user signing.key ~/key.pub; jj config set --user user.name x
    jj config set --user user.email x@y; ${setting}; echo edit >>.a; echo edit >>.local/share/chezmoi/dot_b`)
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .b')
  await sorrow.sync()
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', captured: ['.a'], applied: ['.b'] })
  expect(ran.output.split('no key here to sign with')).toHaveLength(2)
  expect(await atRemote('git show main:dot_b')).toBe(`${ten.replace('line 4', 'of sorrow')}edit`)
  // jj is added to a git clone, and a new clone is made
  await torment.sh('rm -rf .local; git clone -q ../dotfiles.git .local/share/chezmoi')
  expect((await torment.sync()).code).toBe(0)
  await torment.sh('rm -rf .local')
  expect((await torment.sync()).code).toBe(0)
})

test('If jj knows no user name, a commit cannot be pushed, and the reason says how to fix that', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('cd .local/share/chezmoi; echo b >dot_b; jj commit -m "My own" 2>&1')
  const { outcome, reason } = await torment.sync()
  expect({ outcome, reason }).toEqual({
    outcome: 'failed',
    reason: expect.stringMatching(
      /no author and\/or committer.*; set `user\.name` and `user\.email`/,
    ),
  })
  await torment.sh(`cd .local/share/chezmoi; jj config set --user user.name Rain; jj config set --user user.email rain@example.org
    jj metaedit --update-author @- 2>&1`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced' })
  await sorrow.sync()
  expect(await sorrow.sh('cat .b')).toBe('b')
})

import { expect, test } from 'vitest'
import { makeDotfiles, quote, type Dotfiles, type Host } from './dotfiles.ts'
import { type ScratchRoot, useRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))

const ten = Array.from({ length: 10 }, (_, i) => `line ${i}\n`).join('')
const markers = "grep -rlE '^(<{7}|>{7})' $HOME --exclude-dir=.jj --exclude-dir=.git || true"

/** Synchronizes both hosts, sorrow first; checks what must hold for any conflict, and returns torment's conflict. */
async function expectConflict({ sorrow, torment, atRemote }: Dotfiles, files: string[]) {
  const state = 'cat .a .b 2>&1; ls -l .a .b | cut -c 1-10'
  const edits = [await sorrow.sh(state), await torment.sh(state)]
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  const trunk = await atRemote('git rev-parse main')
  const met = await torment.sync()
  expect(met).toMatchObject({ outcome: 'conflict', code: 1, applied: [] })
  expect(met.conflicts).toEqual([{ host: 'torment', files }])
  expect(met.reason).toContain(files[0])
  // the other host sees it too, and is not blocked
  const seen = await sorrow.sync()
  expect(seen).toMatchObject({ outcome: 'up-to-date', code: 0, conflicts: [{ host: 'torment' }] })
  expect(files).toEqual(expect.arrayContaining(seen.conflicts[0]!.files))
  // and nothing of it was applied, pushed to the trunk or left in the source
  expect([await sorrow.sh(state), await torment.sh(state)]).toEqual(edits)
  expect(await atRemote('git rev-parse main')).toBe(trunk)
  expect(await sorrow.sh(markers)).toBe('')
  expect(await torment.sh(markers)).toBe('')
  expect(await torment.sh(`chezmoi apply --no-tty; ${state}; ${markers}`)).not.toContain(
    'of sorrow',
  )
  // a second run finds the same and adds nothing
  const refs = await atRemote('git for-each-ref')
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict', conflicts: met.conflicts })
  expect(await atRemote('git for-each-ref')).toBe(refs)
  return met
}

/** Settles the conflict at one host by a working copy with both sides; then both hosts have the result. */
async function settle({ sorrow, torment, atRemote }: Dotfiles, at: Host, edit: string) {
  const side = at === torment ? 'main@origin' : 'conflict/torment@origin'
  await at.sh(`cd .local/share/chezmoi; jj new @- ${quote(side)} 2>&1; jj resolve --list`)
  expect(await at.sync()).toMatchObject({
    outcome: 'conflict',
    reason: expect.stringContaining('The source has conflicts to resolve'),
  })
  await at.sh(`cd .local/share/chezmoi; ${edit}`)
  expect(await at.sync()).toMatchObject({ outcome: 'synced' })
  const other = at === torment ? sorrow : torment
  expect(await other.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  // the other host's later commits have arrived, too
  expect(await at.sync()).toMatchObject({ code: 0, conflicts: [] })
  expect(await atRemote("git for-each-ref --format='%(refname)'")).toBe('refs/heads/main')
  const texts = await Promise.all([sorrow, torment].map((host) => host.sh('cat .a')))
  expect(texts[0]).toBe(texts[1])
  expect(await at.conflicts()).toBe('No conflicts')
  return texts[0]
}

test.each(['sorrow', 'torment'] as const)(
  'The same line on both: seen on both, applied on neither, and settled at %s',
  async (where) => {
    const world = await makeDotfiles(root, { '.a': ten, '.b': ten })
    const { sorrow, torment, atRemote } = world
    await sorrow.sh('sed -i "s/line 5/of sorrow/" .a')
    await torment.sh('sed -i "s/line 5/of torment/" .a')
    await expectConflict(world, ['dot_a'])
    for (const host of [sorrow, torment]) {
      const shown = await host.conflicts()
      expect(shown).toContain('conflict: dot_a')
      expect(shown).toMatch(/on torment[^]*\+of torment[^]*in the trunk[^]*\+of sorrow/)
    }
    // edits made in the meantime are not lost either
    await torment.sh('echo meanwhile >>.b')
    expect(await torment.sync()).toMatchObject({ outcome: 'conflict', captured: ['.b'] })
    expect(await atRemote('git show conflict/torment:dot_b')).toContain('meanwhile')
    const text = await settle(
      world,
      world[where],
      'sed "s/line 5/of both/" <<<"$(jj file show -r "fork_point(parents(@))" dot_a)" >dot_a',
    )
    expect(text).toBe(ten.replace('line 5', 'of both').trimEnd())
    expect((await world.both('.b'))[0]).toContain('meanwhile')
    const log = await atRemote('git log --format=%s main')
    expect(log).toContain('Dotfiles of sorrow: dot_a')
    expect(log).toContain('Dotfiles of torment: dot_a')
  },
)

test('Edits of adjacent lines conflict like edits of one line', async () => {
  const world = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await world.sorrow.sh('sed -i "s/line 5/of sorrow/" .a')
  await world.torment.sh('sed -i "s/line 6/of torment/" .local/share/chezmoi/dot_a')
  await expectConflict(world, ['dot_a'])
})

test('The same edit on both hosts is no conflict, and an edit that agrees with the trunk ends one', async () => {
  const world = await makeDotfiles(root, { '.a': ten, '.b': ten })
  const { sorrow, torment } = world
  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a; echo same >>.b')
  await torment.sh('sed -i "s/line 5/of torment/" .a; echo same >>.b')
  await expectConflict(world, ['dot_a'])
  await torment.sh('sed -i "s/of torment/of sorrow/" .a')
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  expect(await sorrow.sync()).toMatchObject({ conflicts: [] })
  expect(await world.both('.a')).toEqual(
    Array(2).fill(ten.replace('line 5', 'of sorrow').trimEnd()),
  )
})

test('A file deleted from the source on one host and edited on the other conflicts', async () => {
  const world = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await world.sorrow.sh('chezmoi forget --force .a')
  await world.torment.sh('echo edit >>.a')
  await expectConflict(world, ['dot_a'])
  expect(await world.sorrow.conflicts()).toMatch(/on torment[^]*\+edit[^]*in the trunk[^]*-line 0/)
})

test('A file made executable on one host and edited on the other', async () => {
  const world = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await world.sorrow.sh('chmod +x .a')
  await world.torment.sh('echo edit >>.a')
  await expectConflict(world, ['dot_a'])
})

test('Different permissions on each host conflict, because chezmoi would refuse both together', async () => {
  const world = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await world.sorrow.sh('chmod +x .a')
  await world.torment.sh('chmod go-r .a')
  await expectConflict(world, ['executable_dot_a', 'private_dot_a'])
})

test('A binary file or a template that both hosts edited conflicts', async () => {
  const world = await makeDotfiles(root, { '.a': ten, '.b': ten })
  const { sorrow, torment } = world
  await sorrow.sh(`printf 'a\\0b' >.local/share/chezmoi/dot_bin
    echo '{{ .chezmoi.username }}' >.local/share/chezmoi/dot_t.tmpl`)
  await sorrow.sync()
  await torment.sync()
  for (const host of [sorrow, torment])
    await host.sh(`printf 'a\\0${host.name}' >.bin
      echo '{{ .chezmoi.username }} of ${host.name}' >.local/share/chezmoi/dot_t.tmpl`)
  await expectConflict(world, ['dot_bin', 'dot_t.tmpl'])
  expect(await torment.sh('cat .bin | tr "\\0" 0; cat .t')).toBe('a0tormentrain of torment')
})

test('Conflict markers that the user left in a file are not pushed', async () => {
  const world = await makeDotfiles(root, { '.a': ten })
  const { sorrow, atRemote } = world
  await sorrow.sh("printf '<<<<<<< one\\nx\\n=======\\ny\\n>>>>>>> two\\n' >>.a")
  expect(await sorrow.sync()).toMatchObject({
    outcome: 'conflict',
    reason: 'Conflict markers are left in dot_a',
  })
  expect(await atRemote('git show main:dot_a')).toBe(ten.trimEnd())
  await sorrow.sh('sed -Ei "/^(<|>|=)/d" .a')
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced' })
  expect(await atRemote('git show main:dot_a')).toBe(`${ten}x\ny`)
})

test.each(['diff', 'snapshot', 'git'])(
  'Conflict markers that jj wrote in its style `%s` are not pushed',
  async (style) => {
    const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten })
    await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
    await sorrow.sync()
    await torment.sh('sed -i "s/line 4/of torment/" .a')
    await torment.sync()
    await torment.sh(`cd .local/share/chezmoi; jj config set --user ui.conflict-marker-style ${style}
      jj new @- main@origin 2>&1; cp dot_a ~/marked`)
    const written = (await torment.sh('cat marked'))
      .split('\n')
      .filter((line) => /^\W{7,} /.test(line))
    expect(written.length).toBeGreaterThan(2)
    for (const line of written) {
      await torment.sh(`printf %s ${quote(`${ten}${line}\n`)} >.local/share/chezmoi/dot_a`)
      expect(await torment.sync(), line).toMatchObject({
        reason: 'Conflict markers are left in dot_a',
        applied: [],
      })
    }
    expect(await torment.sh('cat .a')).toContain('of torment')
    expect(await atRemote('git show main:dot_a')).toContain('of sorrow')
    await torment.sh(`printf %s ${quote(ten)} >.local/share/chezmoi/dot_a`)
    expect(await torment.sync()).toMatchObject({ outcome: 'synced' })
    expect(await atRemote('git show main:dot_a')).toBe(ten.trimEnd())
  },
)

test('Conflict markers are not applied while no remote can be reached', async () => {
  const { torment } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  const offline = { CHEZMOI_REPO_URL: 'git://127.0.0.1:1/x.git' }
  // as `git stash pop` leaves them
  await torment.sh(`cd .local/share/chezmoi; echo b >>dot_b
    printf '<<<<<<< Updated upstream\nx\n=======\ny\n>>>>>>> Stashed changes\n' >dot_a`)
  expect(await torment.sync(offline)).toMatchObject({
    outcome: 'conflict',
    reason: 'Conflict markers are left in dot_a',
    applied: [],
  })
  // nor are uncommitted markers
  await torment.sh(
    'cd .local/share/chezmoi; jj squash --from @- --into @ --use-destination-message 2>&1',
  )
  expect(await torment.sync({ CHEZMOI_AUTO_COMMIT: 'false' })).toMatchObject({
    outcome: 'conflict',
    applied: [],
  })
  expect(await torment.sh('cat .a')).toBe(ten.trimEnd())
  await torment.sh('sed -Ei "/^(<|>|=)/d" .local/share/chezmoi/dot_a')
  expect(await torment.sync(offline)).toMatchObject({ outcome: 'offline', applied: ['.a', '.b'] })
})

test('A conflict that the user begins to settle during a run is not applied', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  await torment.sh(`printf '#!/bin/sh\\n[ $1 = fetch ] && jj new main@origin @-\\n' >hook
    chmod +x hook; sed -i "s/line 4/of torment/" .a`)
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  const ran = await torment.sync({ CHEZMOI_PHASE_HOOK: `${torment.home}/hook` })
  expect(ran.reason).toBe('The source has conflicts to resolve: dot_a')
  expect(await torment.sh('grep "of torment" .a; ! grep "<<<" .a')).toBe('of torment')
  await torment.sh('sed -i "/<<<</,/>>>>/cof both" .local/share/chezmoi/dot_a')
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: ['.a'] })
})

test('A file that is larger than the memory of the shell is searched for markers all the same', async () => {
  const { sorrow, atRemote } = await makeDotfiles(root, { '.a': ten })
  // only the shell's memory is limited, not that of git, jj and chezmoi
  await sorrow.sh(`mkdir roomy; for each in git jj chezmoi; do
      printf '#!/bin/sh\nulimit -S -v unlimited\nexec /usr/bin/%s "$@"\n' $each >roomy/$each; done
    ln -sf "$(command -v chezmoi)" chezmoi; sed -i "s|/usr/bin/chezmoi|$HOME/chezmoi|" roomy/chezmoi; chmod +x roomy/*
    echo 'ulimit -S -v 120000' >limit; head -c 60M /dev/urandom >.local/share/chezmoi/dot_big`)
  const path = await sorrow.sh('echo "$PATH"')
  const env = { BASH_ENV: `${sorrow.home}/limit`, PATH: `${sorrow.home}/roomy:${path}` }
  expect(await sorrow.sync(env)).toMatchObject({ outcome: 'synced' })
  expect(await atRemote('git cat-file -s main:dot_big')).toBe(String(60 * 1024 ** 2))
  await sorrow.sh(`printf '\n<<<<<<< one\n>>>>>>> two\n' >>.local/share/chezmoi/dot_big`)
  expect(await sorrow.sync(env)).toMatchObject({
    outcome: 'conflict',
    reason: 'Conflict markers are left in dot_big',
  })
})

test('Edits that two hosts have not merged yet are no conflict', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('echo of sorrow >>.a')
  await sorrow.sync()
  await torment.sh("cd .local/share/chezmoi; echo of torment >>dot_b; jj commit -m 'By hand' 2>&1")
  expect(await torment.conflicts()).toBe('No conflicts')
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
})

test('A conflict that is not published is shown, by lines and by permissions', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a; chmod +x .b')
  await torment.sh('sed -i "s/line 5/of torment/" .a; chmod go-r .b')
  await sorrow.sync()
  expect(await torment.sync({ CHEZMOI_AUTO_PUSH: 'false' })).toMatchObject({ outcome: 'conflict' })
  expect(await torment.conflicts()).toContain('conflict: dot_a')
  await torment.sh(
    `cd .local/share/chezmoi; sed -i "s/of torment/of sorrow/" dot_a; cd; chezmoi apply --force`,
  )
  expect(await torment.sync({ CHEZMOI_AUTO_PUSH: 'false' })).toMatchObject({ outcome: 'conflict' })
  expect(await torment.conflicts()).toContain('conflict: private_dot_b')
})

test('Both edits are shown line by line, whatever diff tool the user has configured', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a')
  await torment.sh('sed -i "s/line 5/of torment/" .a')
  await sorrow.sync()
  await torment.sync()
  const shown = await torment.conflicts()
  await torment.sh(`git config --global diff.external echo; git config --global color.ui always
    git config --global diff.upper.textconv no-such-program; echo '* diff=upper' >.gitattributes
    git config --global core.attributesFile ~/.gitattributes`)
  expect(await torment.conflicts()).toBe(shown)
})

test('Lines that look like a patch header are shown as well', async () => {
  const text = `${ten}-- a comment\n++ a list\n@@ at\n${ten}`
  const world = await makeDotfiles(root, { '.a': text, '.b': ten })
  await world.sorrow.sh(
    'sed -i "s/-- a comment/-- of sorrow/; s/++ a list/++ of sorrow/; s/@@ at/@@ of sorrow/" .a',
  )
  await world.torment.sh('sed -i "/-- a comment/d; s/++ a list/++ of torment/" .a')
  await expectConflict(world, ['dot_a'])
  const shown = await world.torment.conflicts()
  const [ours = '', trunk = ''] = shown.split('\n  in the trunk')
  const lines = (part: string): string[] =>
    part.split('\n').flatMap((line) => (/^ {4}[-+]/.test(line) ? [line.slice(4)] : []))
  expect(lines(ours)).toEqual(['--- a comment', '-++ a list', '+++ of torment'])
  expect(lines(trunk)).toEqual([
    '--- a comment',
    '-++ a list',
    '-@@ at',
    '+-- of sorrow',
    '+++ of sorrow',
    '+@@ of sorrow',
  ])
})

/** Runs the command that the output suggests for an edit at home, by the user's choice of verb. */
const settleHome = (host: Host, shown: string, verb: string): Promise<string> =>
  host.sh(
    new RegExp(`chezmoi ${verb} [^\\s,]+`)
      .exec(shown.replaceAll(/\s+/g, ' '))?.[0]
      .replace('re-add', 're-add --no-tty') ?? `echo nothing of ${verb}; exit 1`,
  )

test.each([
  ['re-add', 'at home'],
  ['apply --force', 'in the source'],
])(
  'An edit at home and a commit that both conflict are each shown on both hosts, until settled by %s',
  async (verb, text) => {
    const world = await makeDotfiles(root, { '.a': ten, '.b': ten })
    const { sorrow, torment, atRemote } = world
    await sorrow.sh('sed -i "s/line 5/of sorrow/" .b')
    await sorrow.sync()
    await torment.sh(`sed -i "s/line 5/at home/" .a
    cd .local/share/chezmoi; sed -i "s/line 5/in the source/" dot_a; sed -i "s/line 5/of torment/" dot_b`)
    const told = async (host: Host): Promise<string[]> =>
      (await host.sync()).conflicts.map((one) => `${one.host} ${one.files.join()}`).toSorted()
    const both = ['torment dot_a', 'torment dot_b']
    expect(await told(torment)).toEqual(both)
    expect(await told(sorrow)).toEqual(both)
    const refs = await atRemote('git for-each-ref')
    expect(await told(torment)).toEqual(both)
    expect(await atRemote('git for-each-ref')).toBe(refs)
    for (const host of [sorrow, torment]) {
      const shown = await host.conflicts()
      expect(shown.match(/^conflict: .*/gm)?.toSorted()).toEqual([
        'conflict: dot_a',
        'conflict: dot_b',
      ])
      expect(shown).toMatch(/on torment[^]*\+at home/)
      expect(shown).toMatch(/on torment[^]*\+of torment[^]*in the trunk[^]*\+of sorrow/)
    }
    expect(await sorrow.conflicts()).toContain('on torment, where it was edited at home')

    // the commit first
    await torment.sh(
      `cd .local/share/chezmoi; jj new @- main@origin 2>&1; sed "s/line 5/of both/" <<<"$(jj file show -r "fork_point(parents(@))" dot_b)" >dot_b`,
    )
    expect(await torment.sync()).toMatchObject({
      outcome: 'conflict',
      conflicts: [{ host: 'torment', files: ['dot_a'] }],
    })
    expect(await told(sorrow)).toEqual(['torment dot_a'])
    expect(await sorrow.sh('cat .b')).toContain('of both')
    const shown = await torment.conflicts()
    expect(shown.match(/^conflict: .*/gm)).toEqual(['conflict: dot_a'])
    await settleHome(torment, shown, verb)
    expect(await torment.sync()).toMatchObject({ code: 0, conflicts: [] })
    expect(await sorrow.sync()).toMatchObject({ code: 0, conflicts: [] })
    expect(await world.both('.a')).toEqual(Array(2).fill(ten.replace('line 5', text).trimEnd()))
    expect(await atRemote("git for-each-ref --format='%(refname)'")).toBe('refs/heads/main')
    for (const host of [sorrow, torment]) expect(await host.conflicts()).toBe('No conflicts')
  },
)

test('A git filter that is not installed, such as that of Git LFS, blocks no merge', async () => {
  const world = await makeDotfiles(root, { '.a': ten })
  const { sorrow, torment } = world
  await sorrow.sh(`cd .local/share/chezmoi
    printf '*.big filter=lfs diff=lfs merge=lfs -text\n' >.gitattributes
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 9\n' 1 >dot_x.big`)
  await sorrow.sync()
  await torment.sync()
  // the settings that `git lfs install` writes
  for (const host of [sorrow, torment]) {
    await host.sh(`git config --global filter.lfs.smudge 'sh -c "exit 2"'
      git config --global filter.lfs.process 'sh -c "exit 2"'
      git config --global filter.lfs.clean cat; git config --global filter.lfs.required true`)
  }
  await sorrow.sh('sed -i "s/line 0/of sorrow/" .a')
  await torment.sh('sed -i "s/line 9/of torment/" .a')
  expect(await sorrow.sync()).toMatchObject({ captured: ['.a'] })
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  await sorrow.sync()
  for (const text of await world.both('.a')) expect(text).toMatch(/of sorrow[^]*of torment/)
})

test('A line that is edited while the trunk’s edit of it is being applied stays, and both hosts see it', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a')
  await sorrow.sync()
  await torment.sh(`printf '#!/bin/sh\\n[ $1 != apply ] || sed -i "s/line 5/of torment/" ~/.a\\n' >hook
    chmod +x hook; echo other >>.b`)
  expect(await torment.sync({ CHEZMOI_PHASE_HOOK: `${torment.home}/hook` })).toMatchObject({
    outcome: 'conflict',
    kept: [{ file: '.a', reason: 'edited here and in the source' }],
    conflicts: [{ host: 'torment', files: ['dot_a'] }],
  })
  expect(await torment.sh('cat .a')).toContain('of torment')
  expect(await atRemote('git show main:dot_a')).toContain('of sorrow')
  expect(await atRemote('git show main:dot_b')).toContain('other')
  expect(await sorrow.sync()).toMatchObject({ conflicts: [{ host: 'torment', files: ['dot_a'] }] })
  for (const host of [sorrow, torment])
    expect(await host.conflicts()).toMatch(/on torment[^]*\+of torment[^]*trunk[^]*\+of sorrow/)
  // it ends when the user has decided
  await torment.sh('chezmoi apply --force .a')
  expect(await torment.sync()).toMatchObject({ outcome: 'up-to-date', conflicts: [] })
  expect(await sorrow.sync()).toMatchObject({ conflicts: [] })
})

test('An edit at home is published unchanged, however git would convert its line endings', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\r\n' })
  await torment.sh(`git config --global core.autocrlf input; git config --global core.safecrlf true
    printf 'source\\r\\n' >.local/share/chezmoi/dot_a; printf 'home\\r\\n' >.a`)
  expect(await torment.sync()).toMatchObject({
    outcome: 'conflict',
    conflicts: [{ host: 'torment', files: ['dot_a'] }],
  })
  expect(await atRemote('git show conflict/torment:dot_a | od -An -c')).toMatch(
    /^ +h +o +m +e +\\r/,
  )
})

test('Rounds in the same second: no edit and no commit is lost, and both hosts end up the same', async () => {
  const rounds = 4
  const seed = Number(process.env['LAB_SEED'] ?? Math.floor(Math.random() * 1e6))
  console.log(`LAB_SEED=${seed}`)
  const random = randomOf(seed)
  const fifty = Array.from({ length: 50 }, (_, i) => `line ${i}\n`).join('')
  const world = await makeDotfiles(root, { '.a': fifty, '.sorrow': 's\n', '.torment': 't\n' })
  const hosts = [world.sorrow, world.torment]
  const edits: string[] = []
  for (let round = 0; round < rounds; round++) {
    await Promise.all(
      hosts.map(async (host, index) => {
        const edit = `${host.name} ${round}`
        edits.push(edit)
        // each host's own files, and distant lines of the shared file, at home or in the source
        const line = index * 30 + Math.floor(random() * 12) + 1
        const place = ['.a', '.local/share/chezmoi/dot_a'][Math.floor(random() * 2)]
        await host.sh(`sed -i '${line}s/$/, ${edit};/' ${place}; echo '${edit};' >>.${host.name}`)
        return host.sync()
      }),
    ).then((all) => expect(all.map(({ outcome }) => outcome)).toEqual(['synced', 'synced']))
  }
  for (const host of [...hosts, ...hosts]) await host.sync()
  const [one, other] = await world.both('.a')
  expect(one).toBe(other)
  for (const edit of edits) expect(one).toContain(`${edit};`)
  for (const { name } of hosts)
    expect((await world.both(`.${name}`)).map((text) => text.split('\n').length)).toEqual([
      rounds + 1,
      rounds + 1,
    ])
  expect(await world.atRemote('git log --format=%s main | grep -c "^Dotfiles of"')).toBe(
    `${2 * rounds + 1}`,
  )
  expect(await world.atRemote("git for-each-ref --format='%(refname)'")).toBe('refs/heads/main')
}, 900_000)

function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return state / 2 ** 31
  }
}

test('A git merge that waits for the user is left alone', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': 'a\n' })
  const git = 'git -c user.name=o -c user.email=o@o'
  const state = 'git status --porcelain=v2 --branch; cat dot_a .git/MERGE_HEAD'
  const before = await sorrow.sh(`cd .local/share/chezmoi; git checkout -q -b side
    echo s >dot_a; ${git} commit -qam s; git checkout -q --detach HEAD~1
    echo t >dot_a; ${git} commit -qam t; ${git} merge side >/dev/null 2>&1 || true; ${state}`)
  expect(await sorrow.sync()).toMatchObject({
    outcome: 'conflict',
    reason: expect.stringMatching(/^git is in the middle .*`git status` there/),
  })
  expect(await sorrow.sh(`cd .local/share/chezmoi; ${state}`)).toBe(before)
})

test('An unfinished series of cherry-picks is left alone', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': 'a\n' })
  const git = 'git -c user.name=o -c user.email=o@o'
  await sorrow.sh(`cd .local/share/chezmoi; git checkout -q -b side
    echo s >dot_a; ${git} commit -qam s; echo x >dot_x; git add dot_x; ${git} commit -qm x; git checkout -q --detach HEAD~2
    echo t >dot_a; ${git} commit -qam t; ${git} cherry-pick side~1 side >/dev/null 2>&1 || true
    echo both >dot_a; ${git} commit -qam both`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'conflict' })
  await sorrow.sh(`cd .local/share/chezmoi; ${git} cherry-pick --continue; git branch -qD side`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', applied: ['.a', '.x'] })
})

test('A bisection is left alone', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': '0\n' })
  const state = 'git rev-parse HEAD; cat .git/BISECT_LOG dot_a ~/.a'
  for (const text of ['1', '2']) {
    await sorrow.sh(`echo ${text} >.a`)
    await sorrow.sync()
  }
  const before = await sorrow.sh(`cd .local/share/chezmoi
    git bisect start HEAD HEAD~2 >/dev/null; chezmoi apply --force; ${state}`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'conflict' })
  expect(await sorrow.sh(`cd .local/share/chezmoi; ${state}`)).toBe(before)
  await sorrow.sh('cd .local/share/chezmoi; git bisect reset 2>&1')
  expect((await sorrow.sync()).outcome).toMatch(/synced|up-to-date/)
  expect(await sorrow.sh('cat .a')).toBe('2')
})

test('A file with which an editor replaced chezmoi’s link is no conflict', async () => {
  const { torment } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await torment.sh(`mkdir -p .config/chezmoi; echo 'mode = "symlink"' >.config/chezmoi/chezmoi.toml
    chezmoi apply --force; echo through >>.a; cp .b new; echo own >>new; mv new .b`)
  expect(await torment.sync()).toMatchObject({
    outcome: 'synced',
    conflicts: [],
    kept: [{ file: '.b', reason: 'not a plain file' }],
  })
  expect(await torment.sh('tail -n 1 .b')).toBe('own')
})

test('Two histories without a common commit conflict in their differences, which are shown', async () => {
  const { torment, sorrow } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await torment.sh(`cd .local/share/chezmoi; export JJ_USER=x JJ_EMAIL=x@x
    jj new 'root()' 2>&1; jj restore --from main@origin 2>&1; echo own >dot_a; jj commit -m own 2>&1`)
  const met = await torment.sync()
  expect(met).toMatchObject({ outcome: 'conflict', conflicts: [{ files: ['dot_a'] }] })
  expect(await sorrow.sync()).toMatchObject({ conflicts: [{ host: 'torment', files: ['dot_a'] }] })
  for (const host of [sorrow, torment]) expect(await host.conflicts()).toMatch(/^conflict: dot_a$/m)
})

test('An uncommitted edit that conflicts is named and shown, and is settled by the command that is shown', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a; echo more >>.b')
  await sorrow.sync()
  await torment.sh('sed -i "s/line 5/of torment/" .a; sed -i "s/line 0/first/" .b')
  const alone = { CHEZMOI_AUTO_COMMIT: 'false' }
  expect(await torment.sync(alone)).toMatchObject({
    outcome: 'conflict',
    conflicts: [{ host: 'torment', files: ['dot_a'] }],
  })
  const shown = await torment.conflicts()
  expect(shown).toMatch(/^conflict: dot_a[^]*\+of torment[^]*trunk[^]*\+of sorrow/)
  const [, place] = /To settle it: (cd .*) && jj commit \(or jj restore,/.exec(shown)!
  await torment.sh(`${place} && jj restore dot_a 2>&1; chezmoi apply --force ~/.a`)
  expect(await torment.sync(alone)).toMatchObject({ conflicts: [] })
  expect(await torment.conflicts()).toBe('No conflicts')
  expect(await torment.sh('cat .a .b')).toMatch(/of sorrow[^]*first[^]*more/)
})

test('A conflict of an edit at home is visible to all hosts, even if the file has another name in the source', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh(`cd .local/share/chezmoi; mv dot_a private_dot_a
    sed -i 's/line 5/of sorrow/' private_dot_a`)
  await sorrow.sync()
  // as by `chezmoi git pull`
  await torment.sh(`sed -i 's/line 5/of torment/' .a
    cd .local/share/chezmoi; jj git fetch 2>&1; jj new main@origin 2>&1`)
  expect(await torment.sync()).toMatchObject({ conflicts: [{ files: ['private_dot_a'] }] })
  expect(await sorrow.sync()).toMatchObject({
    conflicts: [{ host: 'torment', files: ['private_dot_a'] }],
  })
  for (const host of [sorrow, torment])
    expect(await host.conflicts()).toMatch(/on torment[^]*\+of torment/)
  await torment.sh('chezmoi re-add .a')
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  expect(await sorrow.sync()).toMatchObject({ conflicts: [], applied: ['.a'] })
  expect(await sorrow.sh('cat .a')).toContain('of torment')
})

test('A file that chezmoi refuses is not published with a conflict either, however late it is written', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a')
  await sorrow.sync()
  await torment.sh(`sed -i 's/line 5/of torment/' .a; mkdir -p .config/chezmoi
    printf '[add]\nsecrets = "error"\n' >.config/chezmoi/chezmoi.toml
    cd .local/share/chezmoi; jj git fetch 2>&1; jj new main@origin 2>&1
    printf '#!/bin/sh\n[ $1 != publish ] || echo "x = ghp_aBcD1234eFgH5678iJkL9012mNoP3456qRsT" >>~/.a\n' >~/hook
    chmod +x ~/hook`)
  expect(await torment.sync({ CHEZMOI_PHASE_HOOK: `${torment.home}/hook` })).toMatchObject({
    conflicts: [{ host: 'torment', files: ['dot_a'] }],
  })
  expect(await atRemote('git show conflict/torment:dot_a')).toContain('of torment')
  expect(await atRemote('git log -p --all')).not.toContain('ghp_')
  expect(await torment.sh('tail -n 1 .a')).toContain('ghp_')
})

test('An uncommitted edit of the source is not left behind when a conflict is settled', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await torment.sh(`mkdir -p .config/chezmoi; mv .local/share/chezmoi 'my dots'
    printf 'sourceDir = "%s/my dots"' "$HOME" >.config/chezmoi/chezmoi.toml`)
  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a')
  await torment.sh('sed -i "s/line 5/of torment/" .a')
  await sorrow.sync()
  await torment.sync()
  expect(await torment.conflicts()).not.toContain('First:')
  await torment.sh('echo more >>"my dots/dot_b"')
  const shown = await torment.conflicts()
  expect(shown).toContain('First: chezmoi-sync,')
  await torment.sync()
  await torment.sh(
    `${/To settle it: (.* && jj new \S+ \S+), edit/.exec(shown)![1]} 2>&1; cp ~/.a dot_a`,
  )
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  expect(await torment.sh('cat .b')).toBe(`${ten}more`)
})

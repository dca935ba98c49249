/** A sync of dotfiles with an unusual clone, home or history. */
import { expect, test } from 'vitest'
import { lines, makeDotfiles } from './dotfiles.ts'
import { readSteps, spoilable, watch, watchers } from './durable.ts'
import { type ScratchRoot, useRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))
const ten = lines(...Array.from({ length: 10 }, (_, at) => `line ${at}`))
const source = 'cd .local/share/chezmoi'
const git = 'git config --global user.name x; git config --global user.email x@y'

test('A file that a git filter encrypts is never pushed unencrypted', async () => {
  const { torment, atRemote, remote } = await makeDotfiles(root, { '.a': ten })
  await torment.sh(`rm -rf .local .config .a; ${git}; git config --global filter.seal.clean 'tr a-z A-Z'
    git config --global filter.seal.smudge 'tr A-Z a-z'; git clone -q ${remote} .local/share/chezmoi; ${source}
    echo 'dot_secret filter=seal' >.gitattributes; echo hidden >dot_secret; git add -A; git commit -qm sealed
    git push -q origin HEAD:main`)
  const ran = await torment.sync()
  expect(await atRemote('git show main:dot_secret')).toBe('HIDDEN')
  expect(ran).toMatchObject({ outcome: 'failed', reason: expect.stringContaining('dot_secret') })
  // nothing else is blocked
  await torment.sh('echo edit >>.a')
  await torment.sync()
  expect(await atRemote('git show main:dot_a; git show main:dot_secret')).toBe(`${ten}edit\nHIDDEN`)
})

test('A text that was only added to the index of git counts as in no commit, and one that was merged is replaced', async () => {
  const { sorrow, torment, both } = await makeDotfiles(root, { '.a': 'a\n', '.b': ten })
  await torment.sh(`echo mine >.a; chezmoi re-add .a; ${source}; git add -A; git reset -q --hard`)
  const ran = await torment.sync()
  expect(await torment.sh('cat .a')).toBe('mine')
  expect(ran.kept).toMatchObject([{ file: '.a', reason: 'its text is in no commit' }])
  await torment.sh('chezmoi apply --force .a')
  // edited at home and in the source: the text at home is in no commit, but in the merged one
  await torment.sh(
    `sed -i 's/line 2/at home/' .b; ${source}; sed -i 's/line 8/in the source/' dot_b`,
  )
  expect(await torment.sync()).toMatchObject({ captured: ['.b'], kept: [] })
  expect(await torment.sh(`${source}; git for-each-ref refs/chezmoi-sync`)).toBe('')
  await sorrow.sync()
  const merged = ten.replace('line 2', 'at home').replace('line 8', 'in the source').trimEnd()
  expect(await both('.b')).toEqual([merged, merged])
})

test('Files that a sparse git checkout leaves out are not removed on other hosts', async () => {
  const { sorrow, torment, atRemote, remote } = await makeDotfiles(root, { '.a': 'a\n' })
  await sorrow.sh(
    `${source}; mkdir home work; echo home >.chezmoiroot; mv dot_a home; echo x >work/x`,
  )
  await sorrow.sync()
  await torment.sh(
    `rm -rf .local .config; git clone -q --sparse ${remote} .local/share/chezmoi; ${source}; git sparse-checkout set home`,
  )
  const ran = await torment.sync()
  expect(await atRemote('git ls-tree -r --name-only main')).toContain('work/x')
  expect(ran).toMatchObject({ outcome: 'failed', reason: expect.stringContaining('work/x') })
  await torment.sh(`${source}; git sparse-checkout disable`)
  expect((await torment.sync()).outcome).toMatch(/synced|up-to-date/)
  // nor with a sparse checkout that is made later
  await torment.sh(`${source}; git sparse-checkout set home; echo edit >>~/.a`)
  expect((await torment.sync()).outcome).toBe('failed')
  expect(await atRemote('git ls-tree -r --name-only main')).toContain('work/x')
})

test('Changes that git was told to ignore stay on this host', async () => {
  const { torment, atRemote, remote } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(`rm -rf .local .config; git clone -q ${remote} .local/share/chezmoi; ${source}
    echo token >>dot_a; git update-index --skip-worktree dot_a; git status --short`)
  const ran = await torment.sync()
  expect(await atRemote('git show main:dot_a')).toBe('a')
  expect(ran).toMatchObject({ outcome: 'failed', reason: expect.stringContaining('dot_a') })
})

test.each([
  ['a template of that name elsewhere', 'mkdir dot_ssh; echo x >dot_ssh/config.tmpl'],
  [
    'an external',
    `echo x >~/../ext; printf '[".ext"]\\ntype = "file"\\nurl = "file:///home/rain/w/ext"\\n' >.chezmoiexternal.toml`,
  ],
])(
  'A text whose re-add was reverted counts as in no commit, even if there is %s',
  async (_, script) => {
    const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
    await sorrow.sh(`${source}; mkdir dot_app; echo old >dot_app/config; ${script}`)
    await sorrow.sync()
    await torment.sync()
    await torment.sh(
      `echo mine >.app/config; chezmoi re-add .app/config; ${source}; git checkout -q -- dot_app/config`,
    )
    const ran = await torment.sync()
    expect(await torment.sh('cat .app/config')).toBe('mine')
    expect(ran.kept).toMatchObject([{ file: '.app/config', reason: 'its text is in no commit' }])
    // files made by a template or an external are still updated
    await sorrow.sh(
      `[ ! -e .ext ] || { echo new >../ext; sed -i '$a refreshPeriod = "1s"' .local/share/chezmoi/.chezmoiexternal.toml; }
    [ ! -e .ssh ] || echo new >.local/share/chezmoi/dot_ssh/config.tmpl`,
    )
    await sorrow.sync()
    await torment.sync()
    expect(await torment.sh('cat .ext .ssh/config 2>/dev/null || true')).toBe('new')
  },
)

test('The suggested commands settle a conflict, even if there is nothing left to edit', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
  await torment.sh('sed -i "s/line 4/of torment/" .a; echo x >>.b')
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  // torment is offline, and sorrow makes the same edit
  await sorrow.sh('sed -i "s/of sorrow/of torment/" .a')
  expect((await sorrow.sync()).conflicts).toHaveLength(1)
  const told = /To settle it: (.* && jj new \S+ \S+), edit/.exec(await sorrow.conflicts())![1]!
  await sorrow.sh(`${told} 2>&1`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  expect(await sorrow.conflicts()).toBe('No conflicts')
  expect(await atRemote('git show main:dot_b')).toBe(`${ten}x`)
})

test('A repository that the host upgrades from is not accepted as the source, unless edits are not committed', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n', 'flake.nix': '{ }\n' })
  const upgraded = { CHEZMOI_UPGRADE_REPOSITORY: '/home/rain/w/torment/.local/share/chezmoi' }
  await torment.sh('echo "{ unfinished" >.local/share/chezmoi/flake.nix')
  const before = await atRemote('git rev-parse main')
  const ran = await torment.sync(upgraded)
  expect(ran).toMatchObject({ outcome: 'failed' })
  expect(ran.reason).toMatch(/this host upgrades from .*\/chezmoi, too, .* give the dotfiles a/)
  expect(await atRemote('git rev-parse main')).toBe(before)

  const without = await torment.sync({ ...upgraded, CHEZMOI_AUTO_COMMIT: 'false' })
  expect(without).toMatchObject({ outcome: 'synced' })
  expect(await torment.sh('cat .local/share/chezmoi/flake.nix')).toBe('{ unfinished')
  expect(await atRemote('git rev-parse main')).toBe(before)
  // another repository is as good as any
  const other = await torment.sync({ CHEZMOI_UPGRADE_REPOSITORY: '/home/rain/nix-config' })
  expect(other).toMatchObject({ outcome: 'synced' })
})

test('A home directory is not accepted as the source, even through a link', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await root.sh('ln -sfn /home/rain/w/torment /home/rain/link')
  await torment.sh(`rm -rf .local/share/chezmoi; git init -q .; echo private >id_rsa
    mkdir -p .local/share/chezmoi; echo b >.local/share/chezmoi/dot_b`)
  const ran = await torment.sync({ HOME: '/home/rain/link' })
  expect(await atRemote("git for-each-ref --format='%(refname)'")).toBe('refs/heads/main')
  expect(ran.reason).toMatch(
    /^Cannot use .*: it is not a repository of its own, but a directory of /,
  )
})

test('What waits for the user is reported offline, too', async () => {
  const { torment } = await makeDotfiles(root, { '.a': ten })
  const offline = { CHEZMOI_REPO_URL: 'git://127.0.0.1:1/x.git' }
  await torment.sh(`echo 'x: [' >.local/share/chezmoi/.chezmoidata.yaml; echo edit >>.a`)
  expect(await torment.sync(offline)).toMatchObject({
    outcome: 'failed',
    reason: expect.stringMatching(/^Cannot (compare|tell) /),
  })
  await torment.sh('rm .local/share/chezmoi/.chezmoidata.yaml')
  expect(await torment.sync(offline)).toMatchObject({ outcome: 'offline', captured: ['.a'] })
})

test('The user’s own git branch is not pushed to the trunk', async () => {
  const { torment, atRemote, remote } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(`rm -rf .local .config; ${git}; git clone -q ${remote} .local/share/chezmoi; ${source}
    git checkout -q -b experiment; echo x >>dot_a; git commit -qam try`)
  const ran = await torment.sync()
  expect(await atRemote('git show main:dot_a')).toBe('a')
  expect(ran).toMatchObject({ outcome: 'failed', reason: expect.stringContaining('experiment') })
  await torment.sh(`${source}; git checkout -q main`)
  expect((await torment.sync()).outcome).toMatch(/synced|up-to-date/)
})

test('A sync does not leave a branch that the user has begun, nor publish its commits', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n', '.b': 'b\n' })
  await torment.sh(`${git}; ${source}; git switch -q -c experiment`)
  await sorrow.sh('echo of sorrow >>.b')
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({
    outcome: 'failed',
    reason: expect.stringContaining('on the branch `experiment`'),
  })
  await torment.sh(`${source}; echo try >>dot_a; git commit -qam try`)
  await torment.sync()
  expect(await atRemote('git show main:dot_a')).toBe('a')
  await torment.sh(`${source}; git checkout -q main`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: ['.b'] })
  expect(await atRemote('git show main:dot_a')).toBe('a')
  expect(await torment.sh(`${source}; git show experiment:dot_a`)).toBe('a\ntry')
})

test('A jj bookmark is not pushed to the trunk, and its commits are shared once it is deleted', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n', '.b': 'b\n' })
  const trunk = 'git show main:dot_a'
  await torment.sh(
    `${git}; jj config set --user user.name x; jj config set --user user.email x@y; ${source}; jj bookmark create --quiet try`,
  )
  const refused = { outcome: 'failed', reason: expect.stringContaining('the bookmark `try`') }
  expect(await torment.sync()).toMatchObject(refused)
  await torment.sh(`${source}; echo x >>dot_a; jj commit --quiet -m try; echo edit >>~/.b`)
  expect(await torment.sync()).toMatchObject(refused)
  expect(await atRemote(trunk)).toBe('a')
  // once the working copy has left it, it blocks nothing
  await torment.sh(`${source}; jj new --quiet main@origin`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.b'] })
  expect(await atRemote(trunk)).toBe('a')
  await torment.sh(`${source}; jj new --quiet @- try; jj bookmark delete --quiet try`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: ['.a'] })
  expect(await atRemote(trunk)).toBe('a\nx')
})

test('Commits of a bookmark that was pushed by hand are not shared until the trunk has them or the remote lost it', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n', '.b': 'b\n' })
  const begin = (text: string): Promise<string> =>
    torment.sh(`${source}; jj config set --user user.name x; jj config set --user user.email x@y
      echo ${text} >>dot_a; jj commit --quiet -m ${text}; jj bookmark set --quiet try -r @-
      jj git push --quiet --bookmark try 2>&1`)
  await begin('one')
  const { outcome, reason } = await torment.sync()
  expect([outcome, await atRemote('git show main:dot_a')]).toEqual(['failed', 'a'])
  await torment.sh(`${source}; ${/`try`: run `(.*?)` there/.exec(reason!)?.[1]} 2>&1`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: ['.a'] })
  expect(await atRemote('git show main:dot_a; git branch --format="%(refname)"')).toBe(
    'a\none\nrefs/heads/main',
  )
  // as a forge would merge it
  await begin('two')
  await atRemote('git update-ref refs/heads/main try')
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: ['.a'] })
})

test.for([
  ['jj edit', 'jj edit --quiet @--'],
  ['git checkout', 'git checkout -q main'],
])(
  'Unpushed edits are not removed from the home by a `%s` of an earlier commit',
  async ([, back]) => {
    const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n', '.b': 'b\n' })
    const offline = { CHEZMOI_REPO_URL: 'git://127.0.0.1:1/x.git' }
    for (const file of ['.a', '.b']) {
      await torment.sh(`echo edit >>${file}`)
      await torment.sync(offline)
    }
    const commit = await torment.sh(`${source}; git rev-parse --short=12 HEAD; ${back}`)
    expect(await torment.sync()).toMatchObject({
      outcome: 'failed',
      reason: expect.stringContaining(`\`jj new ${commit}\``),
    })
    expect(await torment.sh('cat .a .b')).toBe('a\nedit\nb\nedit')
    await torment.sh(`${source}; jj new --quiet ${commit}`)
    expect((await torment.sync()).outcome).toBe('synced')
    expect(await atRemote('git show main:dot_a main:dot_b')).toBe('a\nedit\nb\nedit')
  },
)

test('Commits that the user has amended do not count as left behind', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(`${git}; echo edit >>.a`)
  await torment.sync({ CHEZMOI_REPO_URL: 'git://127.0.0.1:1/x.git' })
  await torment.sh(`${source}; git commit -q --amend -m Mine`)
  expect((await torment.sync()).outcome).toBe('synced')
  expect(await atRemote('git log -1 --format=%s main')).toBe('Mine')
})

test('A file that is edited in a directory after that was checked stays', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await sorrow.sh(`${source}; mkdir -p dot_one; echo x >dot_one/x`)
  await sorrow.sync()
  await torment.sync()
  await sorrow.sh(`${source}; rm -r dot_one; echo .a >symlink_dot_one`)
  await sorrow.sync()
  await torment.sh(`mkdir slow; cat >slow/git <<'END'
#!/bin/sh
case "$*" in 'cat-file --batch-check'*) [ ! -f ~/.one/x ] || echo late >>~/.one/x ;; esac
exec /usr/bin/git "$@"
END
    chmod +x slow/git`)
  await torment.sync({ PATH: `${torment.home}/slow:/usr/local/bin:/usr/bin` })
  expect(await torment.sh('cat .one/x')).toBe('x\nlate')
})

test.each([
  ['is taken in by the next', 'dot_b', 'synced', 'here', 'No conflicts'],
  ['conflicts as it was', 'dot_a', 'conflict', 'b', '+here'],
])(
  'A file of the source that is edited while a run integrates the trunk %s',
  async (_, file, ...expected) => {
    const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n', '.b': 'b\n' })
    await sorrow.sh('echo elsewhere >.a')
    await sorrow.sync()
    // mv is the last command of a step before it starts jj
    await torment.sh(`mkdir slow; cat >slow/mv <<'END'
#!/bin/sh
case "$*" in *chezmoi-sync/step) [ ! -e ~/armed ] || { rm ~/armed; echo here >~/.local/share/chezmoi/${file}; } ;; esac
exec /usr/bin/mv "$@"
END
    chmod +x slow/mv; touch armed`)
    await torment.sync({ PATH: `${torment.home}/slow:/usr/local/bin:/usr/bin` })
    expect(await torment.sh(`[ ! -e armed ]; cat .local/share/chezmoi/${file}`)).toBe('here')
    const { outcome } = await torment.sync()
    await sorrow.sync()
    const said = (await sorrow.conflicts()).split('\n').map((line) => line.trim())
    expect([
      outcome,
      await sorrow.sh('cat .b'),
      said.find((line) => expected.includes(line)),
    ]).toEqual(expected)
  },
)

test('A source whose .git is elsewhere publishes a conflict like any other', async () => {
  const { sorrow, torment, remote } = await makeDotfiles(root, { '.a': ten })
  await torment.sh(
    `rm -rf .local/share/chezmoi; git clone -q --separate-git-dir=.dotgit ${remote} .local/share/chezmoi`,
  )
  await torment.sync()
  await torment.sh('sed -i "s/line 4/of torment/" .a')
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  expect(await sorrow.conflicts()).toContain('of torment')
})

test('A file that is put aside is on the disk before it is removed from the home', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('echo own >.app')
  await sorrow.sh(`${source}; mkdir dot_app; echo x >dot_app/x; echo '.app/old/*' >.chezmoiremove`)
  await sorrow.sync()
  await root.sh(watch)
  const { kept } = await torment.sync({ PATH: `${watchers}:/usr/local/bin:/usr/bin` })
  expect(kept).toMatchObject([{ file: '.app', copy: expect.stringContaining('/kept/') }])
  const steps = (await root.sh(readSteps)).split('\n').filter((step) => step.includes('/kept'))
  expect(steps.some((step) => step.endsWith(kept[0]!.copy!))).toBe(true)
  expect(spoilable(steps, /^$/)).toEqual([])
})

test('A git hook of another repository can start the sync', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(
    `${git}; git init -q other; git -C other commit -q --allow-empty -m other; echo b >>.a`,
  )
  const dir = `${torment.home}/other/.git`
  const ran = await torment.sync({ GIT_DIR: dir, GIT_INDEX_FILE: `${dir}/index` })
  expect(ran).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  expect(await atRemote('git show main:dot_a')).toBe('a\nb')
  expect(await torment.sh('git -C other for-each-ref; git -C other remote')).toMatch(
    /^\S+ commit\s\S+$/,
  )
})

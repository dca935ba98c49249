/** Hosts and each other's history: clones of all kinds, interrupted or repeated, and a rewritten trunk. */
import { expect, test } from 'vitest'
import { readSteps, spoilable, watch, watchers } from './durable.ts'
import { lines, makeDotfiles, makeHost } from './dotfiles.ts'
import { type ScratchRoot, useRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))

const ten = lines(...Array.from({ length: 10 }, (_, i) => `line ${i}`))
const watched = { PATH: `${watchers}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin` }

test('A trunk that is rewritten while a conflict waits is refused too, and the dropped commits do not come back', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('echo secret >.local/share/chezmoi/dot_secret')
  await sorrow.sync()
  await torment.sync()
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
  await torment.sh('sed -i "s/line 4/of torment/" .a')
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  // the trunk has lost both the secret and sorrow's edit, so nothing conflicts
  await atRemote('git update-ref refs/heads/main main~2')
  for (const _ of [1, 2])
    expect(await torment.sync()).toMatchObject({
      outcome: 'diverged',
      reason: expect.stringContaining('The trunk was rewritten'),
    })
  expect(await atRemote('git ls-tree --name-only main')).toBe('dot_a')
})

test('A change that git can merge and jj cannot is the same conflict in each run, and leaves nothing behind', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('echo "dot_a merge=union" >.local/share/chezmoi/.gitattributes')
  await sorrow.sync()
  await torment.sync()
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
  await torment.sh('sed -i "s/line 4/of torment/" .a')
  await sorrow.sync()
  for (const _ of [1, 2])
    expect(await torment.sync()).toMatchObject({
      outcome: 'conflict',
      conflicts: [{ host: 'torment', files: ['dot_a'] }],
    })
  const merges = `cd .local/share/chezmoi; jj log --no-graph --revisions 'merges()' -T 'commit_id ++ "\\n"'`
  expect(await torment.sh(merges)).toBe('')
})

test('More files than fit on one command line are captured in one commit', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten })
  // 160 KB of names
  await sorrow.sh(`cd .local/share/chezmoi; name=$(printf 'x%.0s' {1..200}); mkdir dot_many
    for i in {1..800}; do echo $i >dot_many/$name-$i; done`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', code: 0 })
  expect((await atRemote('git log -1 --format=%s main')).length).toBeLessThan(3000)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced' })
  expect(await torment.sh('ls .many | wc -l')).toBe('800')
})

test('The number of programs started does not grow with the number of edits, even if chezmoi refuses one of them', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.key': 'x\n' })
  await torment.sh(
    `cd .local/share/chezmoi; for i in {0..39} line$'\\n'end; do echo x >"dot_f$i"; done`,
  )
  expect(await torment.sync()).toMatchObject({ outcome: 'synced' })
  await torment.sh(`mkdir counted; for name in chezmoi jq sha256sum; do
    printf '#!/bin/sh\\necho >>~/starts\\nexec /usr/bin/%s "$@"\\n' $name >counted/$name; done; chmod +x counted/*`)
  const starts = async (edit: string) => {
    await torment.sh(edit)
    const ran = await torment.sync({ PATH: `${torment.home}/counted:/usr/local/bin:/usr/bin` })
    return { ran, count: Number(await torment.sh('wc -l <starts; rm starts')) }
  }
  const one = await starts('echo edit >>.f0')
  const many = await starts(
    "for i in {1..19}; do echo edit >>.f$i; done; echo edit >>.fline$'\\n'end",
  )
  expect(many.ran).toMatchObject({ outcome: 'synced' })
  expect(many.ran.captured).toHaveLength(20)
  expect(many.count).toBe(one.count)
  const refused = await starts(`for i in {20..39}; do echo edit >>.f$i; done
    echo 'x = "ghp_aBcD1234eFgH5678iJkL9012mNoP3456qRsT"' >>.key
    mkdir -p .config/chezmoi; printf '[add]\\nsecrets = "error"\\n' >.config/chezmoi/chezmoi.toml`)
  expect(refused.ran.reason).toMatch(/^Cannot capture \.key: /)
  expect(refused.ran.captured).toHaveLength(20)
  expect(refused.count).toBeLessThan(one.count + 20)
  expect(await atRemote('git show main:dot_f39 main:dot_key')).toBe('x\nedit\nx')
})

test('A conflict from before the host was cloned again is shown, survives its next conflict, and can be settled', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
  await torment.sh('sed -i "s/line 4/of torment/" .a')
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  const former = await atRemote('git rev-parse conflict/torment')
  await torment.sh('rm -rf .a .b .local .config')
  const one = { host: 'torment', files: ['dot_a'] }
  // it is reported, and blocks nothing
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [one] })
  expect(await torment.sh('cat .a')).toContain('of sorrow')
  expect(await torment.sync()).toMatchObject({ outcome: 'up-to-date', conflicts: [one] })
  const text = await torment.conflicts()
  expect(text).toMatch(/on torment[^]*\+of torment[^]*in the trunk[^]*\+of sorrow/)
  expect(text).toContain('jj new @- conflict/torment@origin')
  expect(await sorrow.conflicts()).toBe(text.replaceAll(torment.home, sorrow.home))
  // the new conflict takes the usual name, and the old one gets another
  await sorrow.sh('sed -i "s/line 6/of sorrow/" .b')
  await torment.sh('sed -i "s/line 6/of torment/" .b')
  await sorrow.sync()
  const both = [{ host: 'torment', files: ['dot_b'] }, one]
  for (const _ of [1, 2])
    expect(await torment.sync()).toMatchObject({ outcome: 'conflict', conflicts: both })
  expect(await atRemote('git show conflict/torment:dot_b')).toContain('of torment')
  const kept = `conflict/torment.former-${former.slice(0, 12)}`
  expect(await atRemote(`git rev-parse ${kept}`)).toBe(former)
  expect(await sorrow.sync()).toMatchObject({ conflicts: both })
  for (const host of [sorrow, torment]) expect(await host.conflicts()).toContain('+of torment')
  // each is settled like any other
  await torment.sh('sed -i "s/of torment/of sorrow/" .b')
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [one] })
  const told = /To settle it: (.* && jj new \S+ \S+), edit/.exec(await sorrow.conflicts())![1]!
  expect(told).toContain(kept)
  await sorrow.sh(`${told} 2>&1; echo both >dot_a`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  expect(await atRemote("git for-each-ref --format='%(refname)'")).toBe('refs/heads/main')
  expect(await torment.sh('cat .a')).toBe('both')
})

test('If another clone’s conflict is settled or dropped, its commits do not count as left behind here', async () => {
  const { torment, sorrow, atRemote } = await makeDotfiles(root, { '.a': ten })
  // as if both hosts had one name, or this one had been cloned again
  const clone = { CHEZMOI_HOST: 'torment' }
  await torment.sh('sed -i "s/line 4/of torment/" .a')
  await torment.sync()
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
  expect(await sorrow.sync(clone)).toMatchObject({ outcome: 'conflict' })
  expect((await torment.sync()).conflicts).toHaveLength(1)
  await atRemote('git branch -q -D conflict/torment')
  for (const _ of [1, 2])
    expect(await torment.sync()).toMatchObject({ outcome: 'up-to-date', conflicts: [] })
})

test('A jj repository without git’s is not accepted, and the reason gives the command that adds it', async () => {
  const { torment, remote } = await makeDotfiles(root, { '.a': ten })
  await torment.sh(`rm -rf .local/share/chezmoi
    jj git clone --quiet --no-colocate ${remote} .local/share/chezmoi; echo edit >>.a`)
  const { outcome, reason } = await torment.sync()
  expect(outcome).toBe('failed')
  await torment.sh(`cd .local/share/chezmoi; ${/: run `(.*?)` there/.exec(reason!)?.[1]} 2>&1`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
})

test('An old conflict with an edit at home is shown and settled too, even in a clone that tracks all branches automatically', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('sed -i "s/line 5/of sorrow/" .a')
  await sorrow.sync()
  await torment.sh(
    `printf '#!/bin/sh\\n[ $1 != apply ] || sed -i "s/line 5/of torment/" ~/.a\\n' >hook; chmod +x hook`,
  )
  expect(await torment.sync({ CHEZMOI_PHASE_HOOK: `${torment.home}/hook` })).toMatchObject({
    conflicts: [{ host: 'torment', files: ['dot_a'] }],
  })
  await torment.sh(`rm -rf .a .b .local .config; mkdir -p .config/jj
    printf '[remotes.origin]\\nauto-track-bookmarks = "*"\\n[git]\\nauto-local-bookmark = true\\n' >.config/jj/config.toml`)
  for (const outcome of ['synced', 'up-to-date'])
    expect(await torment.sync()).toMatchObject({
      outcome,
      conflicts: [{ host: 'torment', files: ['dot_a'] }],
    })
  expect(await atRemote('git show conflict/torment:dot_a')).toContain('of torment')
  const told = /To settle it: (.* && jj new \S+ \S+), edit/.exec(await torment.conflicts())![1]!
  await torment.sh(`${told} 2>&1; echo both >dot_a`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  expect(await atRemote("git for-each-ref --format='%(refname)'")).toBe('refs/heads/main')
  expect(await torment.conflicts()).toBe('No conflicts')
})

test('If the old conflict cannot be renamed, no other conflict replaces it', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': ten })
  await sorrow.sh('sed -i "s/line 4/of sorrow/" .a')
  await torment.sh('sed -i "s/line 4/of torment/" .a')
  await sorrow.sync()
  await torment.sync()
  await torment.sh('rm -rf .local/share/chezmoi')
  await torment.sync()
  await atRemote(
    `printf '#!/bin/sh\ncase $1 in *.former-*) exit 1 ;; esac\n' >hooks/update; chmod +x hooks/update`,
  )
  await sorrow.sh('sed -i "s/line 6/again sorrow/" .a')
  await torment.sh('sed -i "s/line 6/again torment/" .a')
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  expect(await atRemote('git show conflict/torment:dot_a')).toContain('of torment')
  await atRemote('rm hooks/update')
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  expect(await atRemote('git show conflict/torment:dot_a')).toContain('again torment')
  expect(
    await atRemote('git grep -l "of torment" $(git for-each-ref --format="%(refname)")'),
  ).toMatch(/former-/)
})

test('A single-branch clone sees conflicts all the same', async () => {
  const { sorrow, torment, remote } = await makeDotfiles(root, { '.a': ten })
  await torment.sh(`rm -rf .local/share/chezmoi
    git clone -q --single-branch ${remote} .local/share/chezmoi; echo torment >>.a`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  await sorrow.sh('echo sorrow >>.a')
  expect(await sorrow.sync()).toMatchObject({ outcome: 'conflict' })
  const before = await torment.conflicts()
  expect(before).toContain('conflict: dot_a')
  expect(await torment.sync()).toMatchObject({ conflicts: [{ host: 'sorrow', files: ['dot_a'] }] })
  expect(await torment.conflicts()).toBe(before)
})

test('A new host clones its configured branch, and brings nothing of the remote’s default branch into it', async () => {
  const { sorrow, remote, atRemote } = await makeDotfiles(root, { '.a': ten })
  const fresh = makeHost(root, 'fresh', `${sorrow.home}/../fresh`, remote)
  const work = `JJ_USER=o JJ_EMAIL=o@o jj commit --message work 2>&1
    jj bookmark set work --revision @- 2>&1; jj git push --bookmark work 2>&1; jj new main@origin 2>&1`
  await sorrow.sh(`mkdir ../fresh; cd .local/share/chezmoi; echo work >dot_work; ${work}`)
  await sorrow.sh('echo trunk >>.a')
  await sorrow.sync()
  await atRemote('git symbolic-ref HEAD refs/heads/work')
  const trunk = await atRemote('git rev-parse main')
  expect(await fresh.sync()).toMatchObject({ outcome: 'synced', applied: ['.a'] })
  expect(await atRemote('git rev-parse main')).toBe(trunk)
})

test('Killed while jj is added to a git clone: the next run clones again', async () => {
  const { torment, remote } = await makeDotfiles(root, { '.a': ten })
  await torment.sh(`rm -rf .local/share/chezmoi; git clone -q ${remote} .local/share/chezmoi
    mkdir -p killers; cat >killers/jj <<'END'
#!/bin/bash
if [[ $* == 'git init'* ]]; then mkdir -p .jj/repo/store; kill -KILL "$(<"$HOME/.local/state/chezmoi-sync/lock.pid")"; exit; fi
exec /usr/bin/jj "$@"
END
    chmod +x killers/jj`)
  const killers = { PATH: `${torment.home}/killers:/usr/local/bin:/usr/bin` }
  expect(await torment.sync(killers)).toMatchObject({ code: 137 })
  await torment.sh('echo edit >>.a')
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  // a clone that has been used is not replaced, whatever is wrong with it
  await torment.sh('rm .local/share/chezmoi/.jj/repo/store/type')
  expect(await torment.sync()).toMatchObject({ outcome: 'failed' })
  expect(await torment.sh('ls .local/share/chezmoi/.jj/repo')).toContain('op_store')
})

test('A power cut after a clone has its final name loses nothing of it', async () => {
  const { sorrow, remote } = await makeDotfiles(root, { '.a': ten })
  const fresh = makeHost(root, 'fresh', `${sorrow.home}/../fresh`, remote)
  await sorrow.sh('mkdir ../fresh')
  await root.sh(watch)
  expect(await fresh.sync(watched)).toMatchObject({ outcome: 'synced', applied: ['.a'] })
  const steps = (await root.sh(readSteps)).split('\n')
  const named = steps.filter((step) => step.includes('chezmoi-sync.clone'))
  expect(named).toEqual([
    expect.stringMatching(/^sync --file-system .*\.chezmoi-sync\.clone$/),
    expect.stringMatching(/^mv -T .*\.chezmoi-sync\.clone .*\/chezmoi$/),
  ])
})

test('A file that is put aside is synced under its final name, even if that is on another disk than the home', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten })
  await torment.sh('echo mine >.m')
  await sorrow.sh(`printf '#!/bin/sh\\ncat; echo more\\n' >.local/share/chezmoi/modify_dot_m`)
  await sorrow.sync()
  await root.sh(watch)
  const { kept } = await torment.sync(watched)
  expect(kept).toMatchObject([{ file: '.m', copy: expect.stringContaining('/kept/') }])
  const steps = (await root.sh(readSteps)).split('\n').filter((step) => step.includes('/kept'))
  expect(steps.some((step) => step.endsWith(kept[0]!.copy!))).toBe(true)
  expect(spoilable(steps, /^$/)).toEqual([])
})

test('A step of jj is recorded once the state to go back to is on the disk, starts once the record is, and is synced at its end', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': ten, '.b': ten })
  await sorrow.sh('echo sorrow >>.a')
  await sorrow.sync()
  await torment.sh('echo torment >>.b')
  await root.sh(watch)
  expect(await torment.sync(watched)).toMatchObject({ outcome: 'synced' })
  const steps = (await root.sh(readSteps)).split('\n').filter((step) => !step.includes('/status.'))
  const state = `${torment.home}/.local/state/chezmoi-sync`
  const noted = [
    'sync --file-system .',
    `sync ${state}/step.new`,
    `mv -T ${state}/step.new ${state}/step`,
    `sync ${state}`,
  ]
  // a commit and a rebase, each of which is on the disk before its record is removed
  const each = [...noted, 'sync --file-system .']
  expect(steps.filter((step) => noted.includes(step))).toEqual([...each, ...each])
})

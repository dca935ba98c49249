import { fromHome } from '../lab-settings.ts'
import type { Case, Scene } from './family.ts'
import { hostModule, ownFiles } from './host-module.ts'
import { killAt } from './interrupted.ts'
import { goesOn, standsStill } from './still.ts'
import { doAsTold, told } from './told.ts'
import {
  cloneOf,
  deployedBy,
  deploysForGood,
  markers,
  module,
  note,
  noted,
  seen,
  upgrades,
} from './upgrade.ts'

/** Clones and trunks that a person or a crash has left in disorder, and what puts them right. */
export const ownRepository: Case[] = [
  {
    name: 'own-repository',
    title:
      'the clone is missing, owned by root, locked, damaged or shallow: the upgrade says how to fix each and loses nothing, and once it is fixed it deploys',
    promise: 'local',
    own: true,
    limit: 500,
    run: mended,
  },
  {
    name: 'half-moved',
    title:
      'jj was killed while it moved the working copy to another commit: the upgrade finishes the move, and keeps what the user has written since',
    promise: 'local',
    own: true,
    limit: 300,
    run: halfMoved,
  },
  {
    name: 'head-left',
    title:
      'jj was killed after it had moved git’s HEAD and before it recorded that: HEAD is put back, and no commit is lost or duplicated',
    promise: 'local',
    own: true,
    limit: 300,
    run: headLeft,
  },
  {
    name: 'edited-before-rebase',
    title:
      'a user edits a file right before the upgrade rebases their commit, and the build fails: the commit goes back to where it was, and the edit stays',
    promise: 'local',
    own: true,
    run: editedBeforeRebase,
  },
  {
    name: 'pushed-conflict',
    title:
      'a commit brings a file with conflict markers: it is refused until it is accepted by name; an example in a document is allowed, and a file in Git LFS is named',
    promise: 'refuse',
    own: true,
    limit: 400,
    run: pushedConflict,
  },
  {
    name: 'in-the-way',
    title:
      'a commit brings a file where the user has one that git ignores: the upgrade names it and leaves it alone until it is moved away',
    promise: 'local',
    own: true,
    limit: 300,
    run: inTheWay,
  },
]

async function mended(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const clone = fromHome(world.paths.flake)
  const inClone = cloneOf(scene, vm)
  const refused = async (reason: RegExp): Promise<string> =>
    (await upgrades(scene, vm, { outcome: 'failed', reason })).reason ?? ''
  const file = `${ownFiles}/all.nix`
  await inClone(
    `echo '{ environment.etc."lab-local".text = "mine"; }' >${file} && jj commit -m Mine`,
  )
  const mine = await inClone('jj log --no-graph -r @- -T commit_id')

  await vm.user(`mv ${clone} ${clone}.away`)
  await refused(/^No repository at /)
  await vm.user(`mv ${clone}.away ${clone} && mv ${clone}/.jj ${clone}/jj`)
  await refused(/ is no colocated jj repository$/)
  await vm.user(`mv ${clone}/jj ${clone}/.jj`)

  const trunk = await world.config.commit(note(vm, 'two'), 'Two')
  await world.config.move(world.branch, null)
  await refused(new RegExp(`^The remote has no branch ${world.branch}$`))
  await world.config.move(world.branch, trunk)

  // as `sudo git pull` leaves it
  await vm.root(`chown -R root: ${await inClone('pwd')}/.git/objects`)
  await doAsTold(scene, vm, await refused(/ belongs to root: `sudo chown -R /))

  const tree = await inClone(
    `id=$(git rev-parse ${mine}^{tree}); echo .git/objects/\${id:0:2}/\${id:2}`,
  )
  scene.must('the tree of the local commit is a loose object', tree, await inClone(`ls ${tree}`))
  await inClone(`cp -p ${tree} ../object && chmod u+w ${tree} && echo x >${tree}`)
  await refused(new RegExp(`^Cannot read the repository: .*${tree}`))
  await inClone(`cp -p ../object ${tree} && rm ../object`)

  // as `git clone --depth` leaves it
  await inClone('git rev-list --max-parents=0 HEAD >.git/shallow')
  await doAsTold(scene, vm, await refused(/ is a shallow clone, which Nix does not read/))

  check(
    'the local commit is unchanged',
    mine,
    await inClone('jj log --no-graph -r @- -T commit_id'),
  )
  // one lock is held by a git that waits for a commit message, the other is left of a killed program
  const lock = `.git/refs/remotes/origin/${world.branch}.lock`
  await inClone(`touch ${lock} && rm -f .git/index.lock
    GIT_EDITOR='sh -c "sleep 1000"' setsid git -c user.name=o -c user.email=o@o commit --all --allow-empty >/dev/null 2>&1 &
    until [ -e .git/index.lock ]; do sleep 0.1; done`)
  await refused(/^Cannot .*\block\b/)
  check('no lock is removed while git is at work', lock, await inClone(`ls ${lock}`))
  await vm.root("pkill -KILL -x git; pkill -KILL -f 'sleep 1000'", { allow: 'any' })

  // an empty file, as a power cut leaves one that was just written
  await inClone('mkdir -p .git/refs/nix-local-upgrade && : >.git/refs/nix-local-upgrade/trunk')
  await deploysForGood(scene, vm)
  check('the remote’s change runs', 'two', await seen(vm))
  check('the local change runs', 'mine', await seen(vm, 'lab-local'))
  check('locks left by killed programs are gone', '', await inClone('find .git -name "*.lock"'))
}

async function halfMoved(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const inClone = cloneOf(scene, vm)
  const text = Array.from({ length: 50 }, (_, line) => `line ${line}`).join('\\n')
  // two local commits: the working copy is on Mine, and is about to move to Other
  await inClone(`jj new ${world.branch}@origin && printf '${text}\\n' >other.txt && mkdir -p deep/er && echo o >deep/er/other
    echo '{ environment.etc."lab-local".text = "mine"; }' >${ownFiles}/all.nix && jj commit -m Other
    jj new ${world.branch}@origin && printf '#!/bin/sh\\n${text}\\n' >tool && chmod +x tool && ln -s tool link
    mkdir gone && echo one >gone/file && jj commit -m Mine`)
  // jj has recorded the move, and written only half of the files
  await inClone(`jj --ignore-working-copy new 'description(exact:"Other\\n")'
    rm -r link gone; truncate -s 20 tool; chmod -x tool
    printf 'line 0\\nline' >other.txt; echo draft >draft`)
  await world.config.commit(note(vm, 'two'), 'Two')
  await deploysForGood(scene, vm)
  check('the remote’s change runs', 'two', await seen(vm))
  check('the local change runs', 'mine', await seen(vm, 'lab-local'))
  const there = 'ls -d tool link gone deep/er/other 2>/dev/null; git diff HEAD --name-only'
  check('the working copy has the files of its commit', 'deep/er/other', await inClone(there))
  const other = await inClone('cat other.txt')
  check('the half-written file is complete', text.replaceAll('\\n', '\n'), other)
  const mine = await inClone(
    `jj log --no-graph -r 'description(exact:"Mine\\n")' -T 'description'; jj file show -r 'description(exact:"Mine\\n")' gone/file`,
  )
  check('the commit that jj moved away from is unchanged', 'Mine\none', mine)
  // jj takes the draft into the commit on which it was written, a child of Mine
  const draft = `cat draft 2>/dev/null || jj file show -r 'description(exact:"Mine\\n")+' draft`
  check('the draft is not lost', 'draft', await inClone(draft))
  const edits = `jj diff --name-only -r 'description(exact:"Mine\\n")+'`
  check('files that jj had not yet written are no edit', 'draft', await inClone(edits))
}

async function headLeft(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const inClone = cloneOf(scene, vm)
  await inClone(`jj new ${world.branch}@origin && echo mine >mine && jj commit -m Mine`)
  const ways = [
    ['HEAD left at the trunk', 'two'],
    ['HEAD left at the old commit', 'three'],
  ] as const
  for (const [way, text] of ways) {
    const before = await inClone('git rev-parse HEAD')
    const trunk = await world.config.commit(note(vm, text), text)
    await killAt(vm, () => vm.holdUpgradeAt('build', { limit: 90 }))
    const left = text === 'two' ? trunk : before
    await inClone(`git update-ref --no-deref HEAD ${left} && git read-tree HEAD`)
    const { status, log } = await vm.upgrade()
    check(`${way}: the upgrade puts it back`, /git's HEAD was left at \w+, and is put back/, log)
    check(`${way}: the remote’s change runs`, text, await seen(vm))
    scene.ends(vm, deployedBy(scene, status).toplevel)
  }
  const log = await inClone(`git log --reverse --format=%s ${world.start.config}..HEAD`)
  check(
    'the local commit is there once, on the remote’s commits',
    'two, three, Mine',
    log.replaceAll('\n', ', '),
  )
}

async function editedBeforeRebase(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const inClone = cloneOf(scene, vm)
  const unit = `${vm.subject.unit}.service`
  await inClone('echo mine >mine && jj commit --quiet -m Mine')
  await world.config.commit(module(vm, 'nonsense\n'), 'Bad')
  // by then the upgrade has recorded what to go back to
  await standsStill(scene, vm, unit, '[ -s /var/lib/nix-local-upgrade/transaction.json ]')
  await inClone('echo since >>mine')
  await goesOn(vm, unit)
  check('outcome', 'build-failed', (await vm.status())?.outcome ?? undefined)
  check('the edit is still there', 'mine\nsince', await inClone('cat mine'))
  const log = `git log --format=%s ${world.start.config}..HEAD; git status --porcelain`
  check('the local commit is back on its old base', 'Mine\n M mine', await inClone(log))
}

async function pushedConflict(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const host = (text: string, more = ''): string => `{ ${noted(text)} }\n${more}`
  const path = hostModule(vm.host)
  const refused = (file: string): Promise<unknown> =>
    upgrades(scene, vm, {
      ...{ outcome: 'conflict', phase: 'rebase' },
      reason: new RegExp(`^Conflict in ${file}$`),
    })
  const document = `# How a conflict looks\n\n\`\`\`\n${markers}\`\`\`\n`
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 9\n`
  // nothing is wrong with the first of all files with markers
  const documents = { 'world/first.md': document, 'world/notes.md': document }
  const first = { ...documents, 'world/big.bin': pointer, [path]: host('one') }
  await world.config.commit(first, 'Documents, and a file of Git LFS')
  const { reason } = await upgrades(scene, vm, { outcome: 'upgraded' })
  check(
    'the reason names the file in Git LFS',
    /Git LFS are not fetched.*: world\/big\.bin/,
    reason ?? '',
  )

  const beside = `${document}${markers.replace('two', 'three')}`
  await world.config.commit({ 'world/notes.md': beside }, 'Beside the example')
  await refused('world/notes\\.md')
  // markers as jj writes them, in a file that is not Nix and would be deployed unchanged
  const ofJj =
    '<<<<<<< conflict 1 of 1\n%%%%%%% diff from base to one\n-none\n+one\n+++++++ two\ntwo\n>>>>>>> conflict 1 of 1 ends\n'
  await world.config.commit({ 'world/notes.md': document, 'world/motd': ofJj }, 'Markers of jj')
  await refused('world/motd')
  // Nix reads the markers as a comment
  const comment = `/*\n${markers}*/\n`
  const bad = { 'world/motd': 'one\ntwo\n', [path]: host('marked', comment) }
  const marked = await world.config.commit(bad, 'Markers')
  await refused(path)
  check('the former commit still runs', 'one', await seen(vm))
  await told(scene, vm, `nix-local-upgrade --accept ${marked}`)
  check('the refused commit is deployed once accepted', 'marked', await seen(vm))

  await world.config.commit({ [path]: host('after', comment) }, 'After')
  await deploysForGood(scene, vm)
  check('markers accepted before do not block a later commit', 'after', await seen(vm))
  // the form in which jj stores a conflict in git
  const sides = { '.jjconflict-base-0/x': 'x\n', '.jjconflict-side-0/x': 'y\n' }
  await world.config.commit(sides, 'A conflict of jj')
  await refused('\\.jjconflict-base-0, \\.jjconflict-side-0')
}

async function inTheWay(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const inClone = cloneOf(scene, vm)
  await inClone("echo lab.env >>.git/info/exclude && echo 'the only copy' >lab.env")
  const before = await inClone('git rev-parse HEAD')
  const bad = '{ environment.etc."lab-case".text = "two" }\n'
  await world.config.commit({ [hostModule(vm.host)]: bad, 'lab.env': 'theirs\n' }, 'Bad')
  await upgrades(scene, vm, { outcome: 'failed', reason: /\blab\.env; move it away$/ })
  check('the user’s ignored file is unchanged', 'the only copy', await inClone('cat lab.env'))
  check('HEAD of the clone is unchanged', before, await inClone('git rev-parse HEAD'))

  await inClone('mv lab.env ../lab.env')
  await upgrades(scene, vm, { outcome: 'build-failed' })
  check('the file of the bad commit is gone', 'away', await inClone('cat lab.env || echo away'))
  await world.config.commit(note(vm, 'three'), 'Good')
  await deploysForGood(scene, vm)
  check('a good commit is deployed', 'three', await seen(vm))
  check('the commit’s file is in the clone', 'theirs', await inClone('cat lab.env'))
  check('the file that the user moved away stays', 'the only copy', await inClone('cat ../lab.env'))
}

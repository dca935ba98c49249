import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import {
  lineOf,
  own,
  readHome,
  replacing,
  setLine,
  setThird,
  shared,
  syncByUnit,
  syncs,
} from './dotfile-sync.ts'
import { fromHome } from '../lab-settings.ts'
import type { EditCase, Scene } from './family.ts'
import { namesReachDisk, powerCutAt } from './interrupted.ts'
import { git } from './remote.ts'
import { killAll, standsStill } from './still.ts'
import { doAsTold, told } from './told.ts'

/** Sources that a killed sync, a power cut or another user has damaged. */
export const spoiltDotfiles: EditCase[] = [
  {
    name: 'cut-off',
    title:
      'a sync is killed with the source half written, and the user goes on editing: the next sync publishes all of the user’s edits, and reverts nothing of the trunk',
    limit: 400,
    run: cutOff,
  },
  {
    name: 'power-cut-at-end',
    title:
      'the power fails the moment a sync has written the trunk’s changes to the source or the home: none is incomplete or mistaken for an edit, and what was put aside is on the disk',
    limit: 400,
    run: cutAtEnd,
  },
  {
    name: 'killed-as-published',
    title:
      'a sync is killed right after the remote has taken its side of a conflict: the next one knows the branch as its own, and deletes it once the conflict is settled',
    limit: 300,
    run: killedAsPublished,
  },
  {
    name: 'damaged',
    title:
      'a power cut or another user has damaged files of the source: the sync names them and pushes nothing, and once they are repaired every edit is still there',
    limit: 400,
    run: damaged,
  },
]

/** Enough for a checkout to take a while. */
const many = 3000
const name = (index: number): string => `labmany/${String(index).padStart(4, '0')}`
const textOf = (index: number): string => `${index}\n`.repeat(50)
const files = Object.fromEntries(Array.from({ length: many }, (_, i) => [name(i), textOf(i)]))
/** chezmoi ignores these files, so that an apply does not spend time on them. */
const ignored = { '.chezmoiignore': 'labmany\nlabgone\n', 'labgone/x': 'x\n' }

const unit = 'chezmoi-pre-update.service'
const state = '/var/lib/chezmoi-sync'

async function cutOff(scene: Scene): Promise<void> {
  const { vm, world, check, must } = scene
  const source = fromHome(world.paths.dotfiles)
  const [one, two] = ['dot_config/lab/one.conf', 'dot_config/lab/two.conf']
  await world.dotfiles.commit(ignored, 'Before')
  await syncs(scene, vm, 'synced')
  const edits = {
    dot_labrc: setThird,
    [two]: (was: string) => was.replace('two 3\n', 'two three\n'),
    'labgone/x': null,
  }
  const afar = await world.dotfiles.commit({ ...files, ...edits }, 'From afar')

  await vm.user(setLine(shared, 15, 'at home'))
  const { stdout: home } = await vm.user('pwd')
  const there = `${home.trim()}/${source}`
  await standsStill(scene, vm, unit, `[ -e ${there}/${name(100)} ]`)
  await killAll(vm, unit)
  const written = `cd ${source}; ls labmany | wc -l; test -e ${state}/step && echo noted`
  const [count, noted] = (await vm.user(written, { allow: 'any' })).stdout.split('\n')
  scene.event(`${count} of ${many} files are written`)
  must(
    'the sync was killed with the source half written',
    true,
    Number(count) < many && noted === 'noted',
  )
  const status = await told(scene, vm, 'chezmoi-status', 'user')
  check(
    'the status names the phase of the killed run',
    /^outcome: +running, phase rebase$/m,
    status,
  )
  const conflicts = await told(scene, vm, 'chezmoi-show-conflicts', 'user')
  check(
    'chezmoi-show-conflicts says that a sync has not ended',
    /^\(a synchronization has not ended/,
    conflicts,
  )

  // what a power cut leaves of new files and of git's lock; then edits by a user who knows nothing of it
  await vm.user(`cd ${source}; truncate -s 3 ${name(1)}; : >${name(2)}; rm ${name(3)}; touch .git/index.lock
    echo since >>${one}; echo since >>${two}`)
  await syncs(scene, vm, 'synced')
  const inTrunk = async (...command: string[]): Promise<string> =>
    (await git(['--git-dir', world.dotfiles.dir, ...command], { allow: [128] }))
      .trim()
      .replaceAll('\n', ' ')
  check(
    'the trunk changes only in the files that the user edited',
    `${one} ${two} dot_labrc`,
    await inTrunk('diff-tree', '-r', '--name-only', afar, world.branch),
  )
  const start = (await world.dotfiles.read(one, afar))!
  check(
    'the edit of a file untouched by the trunk is pushed',
    `${start}since\n`,
    await world.dotfiles.read(one),
  )
  const from = (await world.dotfiles.read(two, afar))!
  check(
    'the edit of a file that the trunk changed is pushed',
    `${from}since\n`,
    await world.dotfiles.read(two),
  )
  for (const [file, line] of [
    [one, start],
    [two, from],
  ] as const)
    check(
      `${file}: the edit is applied at home`,
      `${line}since\n`,
      await readHome(vm, own[file === one ? 0 : 1]!),
    )
  const lines = (await world.dotfiles.read('dot_labrc'))?.split('\n') ?? []
  check('the trunk has the edit made at home', 'line three, at home', `${lines[2]}, ${lines[14]}`)
  check('the file at home is as in the trunk', lines.join('\n'), await readHome(vm, shared))
  const left =
    await vm.user(`cd ${source}; git status --porcelain; git diff --name-only ${world.branch} HEAD
    find .git -name '*.lock'; ls -d labgone ${state}/step 2>/dev/null; ls labmany | wc -l`)
  check('the source is as in the trunk, and nothing is left over', `${many}\n`, left.stdout)
  await syncs(scene, vm, 'up-to-date')

  // as if killed once a step had written all its files; the user goes on from these
  const later = await world.dotfiles.commit({ dot_labrc: setSeventh }, 'From afar, later')
  await vm.user(`cd ${source}; jj git fetch --quiet
    printf '%s\\n' "$(jj op log --no-graph --limit 1 -T id)" ${later} >${state}/step
    jj new --quiet ${world.branch}@origin && echo 'since then' >>${two}`)
  await syncs(scene, vm, 'synced')
  const both = `${from}since\nsince then\n`
  check('an edit made after the cut-off step is pushed', both, await world.dotfiles.read(two))
  check(
    'the edit after the cut-off step stays in the source',
    both,
    (await vm.user(`cat ${source}/${two}`)).stdout,
  )
}

async function cutAtEnd(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  /** Starts a sync, freezes it at a given moment, and cuts the power. */
  const cutOnce = (reached: string): Promise<void> =>
    powerCutAt(scene, vm, async () => {
      await standsStill(scene, vm, unit, reached)
      await vm.root(namesReachDisk)
    })
  const endsWell = async (): Promise<void> => {
    const { status } = await syncByUnit(vm)
    check('the next run ends well', /^(synced|up-to-date)$/, status.outcome ?? 'no outcome')
  }
  await world.dotfiles.commit(ignored, 'Before')
  await syncs(scene, vm, 'synced')
  const trunk = await world.dotfiles.commit({ ...files, dot_labrc: setThird }, 'From afar')
  await cutOnce(`[ -e ${state}/step ] && while [ -e ${state}/step ]; do :; done`)
  await endsWell()
  check('the sync mistakes nothing for an edit', trunk, await world.dotfiles.head())
  const left = await vm.user(`cd ${source}; git status --porcelain; git diff --name-only ${trunk}
    find labmany -type f | wc -l; find labmany -empty | wc -l; ls ${state}/step 2>/dev/null; sed -n 3p ~/${shared}`)
  check('the source is as in the trunk', `${many}\n0\nline three\n`, left.stdout)

  // the user's own text is put aside before a script changes it
  await vm.user('echo mine >.labmod')
  const script = "#!/bin/sh\nsed '/afar/d'\necho from afar\n"
  await world.dotfiles.commit({ modify_dot_labmod: script }, 'A script')
  await cutOnce(`grep --quiet afar ~${vm.vm.user}/.labmod`)
  await endsWell()
  const aside = await vm.user(
    `cat .labmod; find ${state}/kept -type f -exec grep -hx mine {} + | sort -u`,
  )
  check('the text put aside is on the disk', 'mine\nfrom afar\nmine\n', aside.stdout)
}

async function killedAsPublished(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  const mine = `conflict/${vm.host}`
  const hook = join(world.dotfiles.dir, 'hooks/post-receive')
  mkdirSync(dirname(hook), { recursive: true })
  writeFileSync(hook, '#!/bin/sh\nexec sleep 60 >/dev/null 2>&1\n', { mode: 0o755 })
  await vm.user(setLine(shared, 7, 'mine'))
  await world.dotfiles.commit({ dot_labrc: replacing(7, 'from afar') }, 'Clashes')
  await vm.root(`systemctl start --no-block ${unit}`)
  const published = async (): Promise<string> => {
    const commit = await world.dotfiles.head(mine)
    const text = commit === undefined ? undefined : await world.dotfiles.read('dot_labrc', commit)
    return lineOf(text, 7)
  }
  const there = `[ -n "$(git ls-remote origin refs/heads/${mine})" ]`
  await vm.user(`cd ${source} && until ${there}; do sleep 0.2; done`, {
    timeout: 60 * vm.patience,
  })
  await killAll(vm, unit)
  rmSync(hook)
  await syncs(scene, vm, 'conflict')
  check('the conflict is still published', 'mine', await published())
  // in favour of the trunk: no commit there will descend from the published one
  await vm.user(
    `cd ${source} && jj new ${world.branch}@origin && chezmoi apply --force ~/${shared}`,
  )
  await syncs(scene, vm, '(synced|up-to-date)')
  check('the home has the settled line', 'from afar', lineOf(await readHome(vm, shared), 7))
  const list = ['--git-dir', world.dotfiles.dir, 'branch', '--list', 'conflict/*']
  const left = await git(list, { allow: [128] })
  check('no conflict branch is left', '', left.trim())
}

const setSeventh = replacing(7, 'line seven')

async function damaged(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  const inSource = (script: string) => vm.user(`set -e; cd ${source}; ${script}`)
  const one = 'dot_config/lab/one.conf'
  // the power cut was long ago, and no sync has run since the boot
  await inSource('touch -d 2020-01-01 .git/index.lock .git/refs/remotes/origin/main.lock')
  await world.dotfiles.commit({ dot_labrc: setThird }, 'From afar')
  await syncs(scene, vm, 'synced')
  const locks = "find .git -name '*.lock'"
  check('locks from before the boot are removed', '', (await inSource(locks)).stdout)

  const trunk = await world.dotfiles.commit({ dot_labrc: setSeventh }, 'From afar, too')
  await vm.user(`${setLine(shared, 15, 'at home')}; echo here >>${source}/${one}`)
  const texts = `sed -n '3p;7p;15p' ~/${shared}; tail -n 1 ${one}`
  const object = (what: string) => `git rev-parse ${what} | sed 's,^..,.git/objects/&/,'`
  const head = (await inSource('git rev-parse HEAD')).stdout.trim()
  const damages: [string, string, RegExp][] = [
    ['the index of git', 'echo .git/index', /^Cannot read the source: /],
    ['a commit', object('HEAD'), new RegExp(head)],
    [
      'an operation of jj',
      'echo .jj/repo/op_store/operations/$(ls .jj/repo/op_heads/heads)',
      /^Cannot read the source: .*operation/,
    ],
    [
      'the state of chezmoi',
      'echo ~/.config/chezmoi/chezmoistate.boltdb',
      /chezmoistate\.boltdb.*; once it is moved away, chezmoi begins a new one$/,
    ],
  ]
  const fails = async (what: string, reason: RegExp) => {
    const status = await syncs(scene, vm, 'failed')
    check(`${what}: the reason says what is wrong`, reason, status.reason ?? 'no reason')
    const found = (await inSource(texts)).stdout
    check(`${what}: both edits stay`, 'line three\nline 7\nat home\nhere\n', found)
    check(`${what}: nothing is pushed`, trunk, await world.dotfiles.head())
    return status.reason ?? ''
  }
  for (const [what, find, reason] of damages) {
    // not empty, as an empty file would count as a new one
    await inSource(
      `f=$(${find}); cp -fp "$f" ~/labgood; rm -f "$f"; printf 'x' >"$f"; echo "$f" >~/labpath`,
    )
    await fails(what, reason)
    await inSource('f=$(cat ~/labpath); rm -f "$f"; cp -p ~/labgood "$f"')
  }
  await inSource('touch .git/packed-refs.lock')
  await vm.root(
    `chown -R root: $(getent passwd ${vm.vm.user} | cut -d: -f6)/${source}/.git/objects`,
  )
  const said = await fails('files of root', /objects\S* belongs to root: `sudo chown -R /)
  check('a lock left since the failed run is removed', '', (await inSource(locks)).stdout)
  await doAsTold(scene, vm, said)

  // the user begins a commit by hand, and abandons it later
  await vm.user('mkfifo labsaid')
  await inSource(`export GIT_EDITOR="sh -c 'read -r no <~/labsaid; false'"
    setsid git -c user.name=o -c user.email=o@o commit --quiet -e -am 'By hand' >/tmp/lab-commit 2>&1 </dev/null &
    until [ -e .git/index.lock ]; do sleep 0.1; done`)
  const beside = (await syncByUnit(vm)).status
  scene.event(`beside git at work it came to ${beside.outcome}: ${beside.reason}`)
  check('the lock of a running git stays', '.git/index.lock\n', (await inSource(locks)).stdout)
  await vm.user('echo no >labsaid; while pgrep -x git >/dev/null; do sleep 0.1; done')
  await syncs(scene, vm, 'synced')
  const all = 'line three\nline seven\nat home\nhere\n'
  check('after the repairs the host has all edits', all, (await inSource(texts)).stdout)
  const lines = (await world.dotfiles.read('dot_labrc'))?.split('\n') ?? []
  const published = [
    lines[2],
    lines[6],
    lines[14],
    (await world.dotfiles.read(one))?.trim().split('\n').at(-1),
  ]
  check('after the repairs the trunk has all edits', all, `${published.join('\n')}\n`)
  // zeros only, as a power cut leaves a new file
  await vm.user(
    'truncate -s 0 ~/.config/chezmoi/chezmoistate.boltdb; truncate -s 32K ~/.config/chezmoi/chezmoistate.boltdb',
  )
  await syncs(scene, vm, 'up-to-date')
}

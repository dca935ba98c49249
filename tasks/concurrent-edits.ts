import { fromHome } from '../lib/lab-settings.ts'
import { dotfileAnswers } from '../lib/scenario/answers.ts'
import { dotfileCommands } from '../lib/scenario/dotfile-commands.ts'
import { dotfileHistory } from '../lib/scenario/dotfile-history.ts'
import {
  editAndSync,
  lineOf,
  own,
  readHome,
  replacing,
  said,
  setLine,
  setThird,
  shared,
  syncByUnit,
  syncs,
} from '../lib/scenario/dotfile-sync.ts'
import { hardDotfiles } from '../lib/scenario/hard-dotfiles.ts'
import { ownEdits } from '../lib/scenario/own-edits.ts'
import { scenarioTask, type EditCase, type Family, type Scene } from '../lib/scenario/scenario.ts'
import { putBack } from '../lib/scenario/put-back.ts'
import { sealedConflict } from '../lib/scenario/sealed-conflict.ts'
import { spoiltDotfiles } from '../lib/scenario/spoilt-dotfiles.ts'
import { told } from '../lib/scenario/told.ts'
import { rebuild } from '../lib/scenario/trial.ts'
import { unknownToJj } from '../lib/scenario/unknown-to-jj.ts'
import { untrackedDotfiles } from '../lib/scenario/untracked-dotfiles.ts'

/** Hosts whose user does by hand what the sync does by default. */
const byUser = [
  {
    name: 'own-push',
    title: 'a host is set not to push (autoPush): its edits stay on it until its user pushes them',
    option: 'autoPush',
    publish: (branch: string): string =>
      `jj bookmark set ${branch} -r @- && jj git push --bookmark ${branch}`,
  },
  {
    name: 'own-commit',
    title:
      'a host is set not to commit (autoCommit): its edits stay on it until its user commits them',
    option: 'autoCommit',
    publish: (): string => "jj commit -m 'By hand' && chezmoi-sync",
  },
]

const cases: EditCase[] = [
  {
    name: 'different-files',
    title:
      'each host edits a different file, one in $HOME and one in the source: both hosts get both edits',
    hosts: 2,
    run: differentFiles,
  },
  {
    name: 'different-lines',
    title: 'both hosts edit distant lines of the same file: both hosts get both edits',
    hosts: 2,
    run: differentLines,
  },
  {
    name: 'same-line',
    title:
      'both hosts edit the same line: the conflict is shown on both, applied on neither, and gone once it is settled',
    hosts: 2,
    limit: 300,
    run: sameLine,
  },
  {
    name: 'offline',
    title:
      'one host has no network for a while and goes on editing: it catches up later, and no edit is lost',
    hosts: 2,
    limit: 300,
    run: offline,
  },
  ...ownEdits,
  putBack,
  sealedConflict,
  ...hardDotfiles,
  ...dotfileHistory,
  ...spoiltDotfiles,
  untrackedDotfiles,
  unknownToJj,
  dotfileAnswers,
  ...dotfileCommands,
  ...byUser.map(({ name, title, option, publish }): EditCase => ({
    name,
    title,
    limit: 300,
    run: (scene) => publishedByUser(scene, option, publish),
  })),
  {
    name: 'same-second',
    title: 'both hosts push in the same second, in 20 rounds: no edit and no commit is lost',
    hosts: 2,
    limit: 900,
    run: sameSecond,
  },
]

export const family: Family = {
  name: 'concurrent-edits',
  describe: 'Edit dotfiles on both VMs at once, and see that no edit and no commit is lost',
  cases: cases.map((one) => ({ ...one, promise: 'edits', own: true })),
}

const rounds = 20

async function differentFiles(scene: Scene): Promise<void> {
  const { vm, other } = scene
  const source = fromHome(scene.world.paths.dotfiles)
  await vm.user(setLine(own[0]!, 3, `of ${vm.host}`))
  await other.user(setLine(`${source}/dot_config/lab/two.conf`, 3, `of ${other.host}`))
  await syncs(scene, vm, 'synced')
  await syncs(scene, other, 'synced')
  await syncs(scene, vm, 'synced')
  await converged(scene, own[0]!, [`of ${vm.host}`])
  await converged(scene, own[1]!, [`of ${other.host}`])
}

async function differentLines(scene: Scene): Promise<void> {
  const { vm, other } = scene
  for (const [index, host] of [vm, other].entries())
    await host.user(setLine(shared, 3 + 15 * index, `of ${host.host}`))
  await syncs(scene, vm, 'synced')
  await syncs(scene, other, 'synced')
  await syncs(scene, vm, 'synced')
  await converged(scene, shared, [`of ${vm.host}`, `of ${other.host}`])
}

async function sameLine(scene: Scene): Promise<void> {
  const { vm, other, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  // git and jj print such a name in quotes unless they are told otherwise
  const [file, inSource] = ['.größe', 'dot_größe']
  const text = await world.dotfiles.read('dot_labrc')
  await world.dotfiles.commit({ [inSource]: text! }, 'A file that is not ASCII')
  for (const host of [vm, other]) await syncs(scene, host, 'synced')
  for (const host of [vm, other]) await host.user(setLine(file, 7, `of ${host.host}`))
  await syncs(scene, vm, 'synced')
  await syncs(scene, other, 'conflict')
  await syncs(scene, vm, 'up-to-date')
  for (const host of [vm, other]) {
    const shown = await told(scene, host, 'chezmoi-show-conflicts', 'user')
    check(
      `${host.host} names the conflicting file`,
      new RegExp(`^conflict: ${inSource}$(?![^]*No conflicts)`, 'm'),
      shown,
    )
    for (const each of [vm, other])
      check(
        `${host.host} shows the edit of ${each.host}`,
        new RegExp(`\\+of ${each.host}$`, 'm'),
        shown,
      )
    check(
      `${host.host} has the conflict in its status`,
      new RegExp(`"host":\\s*"[\\w-]+",\\s*"files":\\s*\\[\\s*"${inSource}"`),
      await told(scene, host, 'chezmoi-status --json', 'user'),
    )
    const line = lineOf(await readHome(host, file), 7)
    check(`${host.host} still has its own text`, `of ${host.host}`, line)
    const dirty = await host.user(`grep -lE '^(<{7}|>{7})' ~/${file} ${source}/${inSource}`, {
      allow: [1],
    })
    check(`${host.host} has no markers in $HOME and in the source`, '', dirty.stdout)
  }
  const trunk = await world.dotfiles.read(inSource)
  check('the trunk has only the first edit', `of ${vm.host}`, lineOf(trunk, 7))
  const published = await world.dotfiles.read(inSource, `conflict/${other.host}`)
  check('the second edit is published as a conflict', `of ${other.host}`, lineOf(published, 7))

  await other.user(`cd ${source} && jj new @- ${world.branch}@origin`)
  const open = `conflict: The source has conflicts to resolve: ${inSource}`
  await syncs(scene, other, open)
  await other.user(`cd ${source} && jj resolve --tool :ours ${inSource}
    ${setLine(inSource, 7, 'of both')}`)
  await syncs(scene, other, 'synced')
  await syncs(scene, vm, 'synced')
  await converged(scene, file, ['of both'])
  const none = await told(scene, vm, 'chezmoi-show-conflicts', 'user')
  check('nothing conflicts any more', 'No conflicts', none)
  const left = await world.dotfiles.head(`conflict/${other.host}`)
  check('the bookmark of the conflict is gone', 'gone', left ?? 'gone')
}

async function offline(scene: Scene): Promise<void> {
  const { heal, inject, prove } = await import('../lib/fault/lease.ts')
  const { vm, other } = scene
  const source = fromHome(scene.world.paths.dotfiles)
  const fault = scene.fault('cut of the uplink', other.host)
  const cut = await inject({
    kind: 'cut',
    link: 'uplink',
    hosts: [other.host],
    direction: 'both',
    lease: 300 * scene.patience,
  })
  const bitten = await prove(cut)
  fault.bit(bitten.holds, bitten.text)
  await vm.user(setLine(shared, 3, `of ${vm.host}`))
  await syncs(scene, vm, 'synced')
  for (const line of [15, 18]) {
    await other.user(setLine(shared, line, `${other.host} in line ${line}`))
    const status = await syncs(scene, other, 'offline')
    scene.check(`line ${line} was captured`, shared, status.captured.join())
  }
  await other.user(setLine(`${source}/dot_config/lab/two.conf`, 3, `of ${other.host}`))
  await syncs(scene, other, 'offline')
  scene.check(
    'an edit of the source is applied without a network',
    `of ${other.host}`,
    lineOf(await readHome(other, own[1]!), 3),
  )
  // an error that the user has to fix is reported without a network, too, in each run until it is fixed
  await other.user(`echo '{{ fail "no" }}' >${source}/dot_labt.tmpl`)
  for (const _ of [1, 2]) await syncs(scene, other, 'failed: Cannot apply .*\\.labt: ')
  await other.user(`rm ${source}/dot_labt.tmpl`)
  // one line for the link; none would mean that the fault was gone before
  const healed = await heal(other.vm, ['uplink'])
  fault.healed(healed.length === 1, healed.join('; '))
  await syncs(scene, other, 'synced')
  await syncs(scene, vm, 'synced')
  await converged(scene, shared, [
    `of ${vm.host}`,
    `${other.host} in line 15`,
    `${other.host} in line 18`,
  ])
  await converged(scene, own[1]!, [`of ${other.host}`])
}

async function publishedByUser(
  scene: Scene,
  option: string,
  publish: (branch: string) => string,
): Promise<void> {
  const { vm, world, check } = scene
  const trunk = async (line: number): Promise<string> =>
    lineOf(await world.dotfiles.read('dot_labrc'), line)
  const module = `{ lib, ... }: { myModules.services.chezmoiSync.${option} = lib.mkForce false; }\n`
  const { toplevel } = await rebuild(scene, vm, module)
  scene.ends(vm, toplevel)
  // a sync that runs during the switch goes on
  const script = `#!/bin/sh
echo begun >>labruns; until [ -e /run/lab-go ]; do sleep 0.1; done; echo ended >>labruns\n`
  await world.dotfiles.commit({ 'run_once_lab.sh': script }, 'Script')
  const runs = `until [ -e ~${vm.vm.user}/labruns ]; do sleep 0.2; done`
  await vm.root(
    `systemctl start --no-block chezmoi-pre-update.service; ${runs}
    { sleep ${Math.ceil(5 * vm.patience)}; touch /run/lab-go; } >/dev/null 2>&1 &
    ${toplevel}/bin/switch-to-configuration switch; wait; systemctl start chezmoi-pre-update.service || true`,
    { timeout: 120 * vm.patience },
  )
  check('a switch does not end a running sync', 'begun\nended\n', await readHome(vm, 'labruns'))
  const before = await trunk(15)
  await vm.user(setLine(shared, 15, 'mine'))
  await world.dotfiles.commit({ dot_labrc: setThird }, 'From afar')
  const status = await syncs(scene, vm, 'synced')
  check('the edit is captured', shared, status.captured.join())
  const both = async (): Promise<void> => {
    const lines = (await readHome(vm, shared)).split('\n')
    check('the edit is still at home', 'mine', lines[14])
    check('the remote edit is at home', 'line three', lines[2])
  }
  await both()
  check('the trunk does not have the edit yet', before, await trunk(15))
  if (option === 'autoPush') {
    await leavesMarkers(scene)
    await keepsConflict(scene)
  }
  await syncs(scene, vm, 'up-to-date')
  await vm.user(`cd ${fromHome(world.paths.dotfiles)} && ${publish(world.branch)}`, {
    timeout: 60 * vm.patience,
  })
  check('the trunk has the edit once the user publishes it', 'mine', await trunk(15))
  check('the trunk has the remote edit', 'line three', await trunk(3))
  await syncs(scene, vm, 'up-to-date')
  await both()
}

/** Conflict markers that are left in the source must not reach the home, even where nothing is pushed. */
async function leavesMarkers(scene: Scene): Promise<void> {
  const { vm, world } = scene
  const inSource = (script: string) =>
    vm.user(`cd ${fromHome(world.paths.dotfiles)} && ${script} dot_labrc`)
  const text = await readHome(vm, shared)
  await inSource("printf '<<<<<<< one\\nx\\n=======\\ny\\n>>>>>>> two\\n' >>")
  await syncs(scene, vm, 'conflict: Conflict markers are left in dot_labrc')
  scene.check('markers do not reach the home', text, await readHome(vm, shared))
  await inSource("sed -i '/^<{7} one/,/^>{7} two/d' -E")
  await syncs(scene, vm, '(synced|up-to-date)')
}

/** A conflict must not be published to other hosts before the user says so. */
async function keepsConflict(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  await vm.user(setLine(shared, 7, 'mine'))
  await world.dotfiles.commit({ dot_labrc: replacing(7, 'from afar') }, 'Clashes')
  await syncs(scene, vm, 'conflict')
  const published = (await world.dotfiles.head(`conflict/${vm.host}`)) ?? 'none'
  check('the conflict is not published', 'none', published)
  await vm.user(
    `cd ${fromHome(world.paths.dotfiles)} && jj new @- ${world.branch}@origin && jj resolve --tool :ours dot_labrc`,
  )
  // the home has that text already
  await syncs(scene, vm, 'up-to-date')
  check(
    'the settled text is not published',
    'from afar',
    lineOf(await world.dotfiles.read('dot_labrc'), 7),
  )
}

async function sameSecond(scene: Scene): Promise<void> {
  const { vms, world, random, check, must, say } = scene
  const source = fromHome(world.paths.dotfiles)
  const edits: string[] = []
  let refused = 0
  for (let round = 1; round <= rounds; round++) {
    say(`round ${round} of ${rounds}, seed ${scene.seed}`)
    const all = await Promise.all(
      vms.map((vm, index) => {
        const edit = `${vm.host} ${round}`
        edits.push(edit)
        // each host edits its own half of the shared file, at home or in the source, and its own file
        const line = index * 15 + Math.floor(random() * 9) + 1
        const place = random() < 0.5 ? shared : `${source}/dot_labrc`
        return editAndSync(
          vm,
          `sed -i '${line}s/$/, ${edit};/' ${place}; echo '${edit};' >>${own[index]!}`,
        )
      }),
    )
    for (const [index, { status }] of all.entries())
      must(`round ${round} of ${vms[index]!.host}`, 'synced', said(status))
    if (all.some(({ pushes }) => pushes > 1)) refused++
  }
  check('some push was refused and tried again', true, refused > 0)
  scene.event(`${refused} of ${rounds} rounds had a refused push`)
  for (const vm of [...vms, vms[0]!]) await syncByUnit(vm)
  await converged(
    scene,
    shared,
    edits.map((edit) => `${edit};`),
  )
  for (const [index, vm] of vms.entries())
    await converged(
      scene,
      own[index]!,
      edits.filter((edit) => edit.startsWith(vm.host)),
    )
  const commits = await world.dotfiles.commits(world.branch)
  check('the trunk has the start and one commit for each edit', 1 + 2 * rounds, commits.length)
}

/** Checks that both homes and the trunk have the same text, with every one of these edits. */
async function converged(scene: Scene, file: string, edits: string[]): Promise<void> {
  const [one = '', another] = await Promise.all(scene.vms.map((vm) => readHome(vm, file)))
  scene.check(`${file} is the same on both hosts`, one, another)
  const trunk = await scene.world.dotfiles.read(file.replace(/^\./, 'dot_'))
  scene.check(`${file} is the same in the trunk`, one, trunk)
  const missing = edits.filter((edit) => !one.includes(edit))
  scene.check(`${file} has all ${edits.length} edits`, '', missing.join(' '))
}

await scenarioTask(import.meta, family)

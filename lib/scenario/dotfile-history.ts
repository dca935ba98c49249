import { dirname } from 'node:path'
import {
  lineOf,
  own,
  readHome,
  replacing,
  setLine,
  setThird,
  shared,
  syncs,
} from './dotfile-sync.ts'
import { fromHome } from '../lab-settings.ts'
import type { EditCase, Scene } from './family.ts'
import { told } from './told.ts'

/** The remote's history is rewritten, and a host loses its clone. */
export const dotfileHistory: EditCase[] = [
  {
    name: 'rewritten',
    title:
      'the trunk of the dotfiles is rewritten, then removed: no commit that was taken out comes back, no edit is lost, and an empty remote gets everything',
    limit: 300,
    run: rewritten,
  },
  {
    name: 'cloned-anew',
    title:
      'a host loses its clone while a conflict is open and is cloned again, also by hand: the published conflict stays, and edits and conflicts still get through',
    limit: 300,
    run: clonedAnew,
  },
]

async function rewritten(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  const start = (await world.dotfiles.head())!
  const line = async (number: number, from: 'home' | 'trunk') => {
    const text =
      from === 'home' ? await readHome(vm, shared) : await world.dotfiles.read('dot_labrc')
    return lineOf(text, number)
  }
  await world.dotfiles.commit({ dot_labrc: replacing(3, 'leaked') }, 'Leaked')
  await syncs(scene, vm, 'synced')
  await vm.user(setLine(shared, 15, 'mine'))
  // an open conflict must not make the sync forget which trunk it has seen before
  await world.dotfiles.commit({ dot_labrc: replacing(15, 'from afar') }, 'Clashes')
  await syncs(scene, vm, 'conflict')
  const other = { branch: 'other', parent: start }
  await world.dotfiles.commit({ dot_labrc: setThird }, 'Other', other)
  const trunk = await world.dotfiles.commit({ dot_labrc: setThird }, 'Rewritten', { parent: start })
  // looking at the conflicts before a sync changes nothing
  const look = await told(scene, vm, 'chezmoi-show-conflicts', 'user')
  check('both texts of the conflict are shown', /\+leaked\n.*\+line three$/ms, look)
  for (const run of ['first run', 'second run']) {
    await syncs(scene, vm, 'diverged: The trunk was rewritten')
    check(`${run}: nothing is pushed`, trunk, await world.dotfiles.head())
    check(`${run}: the edit stays`, 'mine', await line(15, 'home'))
  }
  await vm.user(`cd ${source} && jj rebase --source @- --onto ${world.branch}@origin`)
  await syncs(scene, vm, 'synced')
  check('the trunk has the edit once the user rebases it', 'mine', await line(15, 'trunk'))
  check('the removed text is not in the trunk', 'line three', await line(3, 'trunk'))
  check('the removed text is not at home', 'line three', await line(3, 'home'))
  // the trunk is reset right after the push: this host has not fetched since then
  const pushed = (await world.dotfiles.head())!
  await world.dotfiles.move(world.branch, trunk)
  await syncs(scene, vm, 'diverged: The trunk was rewritten')
  check('a commit that was taken out is not pushed again', trunk, await world.dotfiles.head())
  await world.dotfiles.move(world.branch, pushed)

  await world.dotfiles.move(world.branch, null)
  await vm.user(setLine(shared, 18, 'mine, too'))
  const names = `\`${world.branch}\` \\(it has other`
  await syncs(scene, vm, `failed: The remote has no branch ${names}`)
  check('a removed trunk is not created again', 'none', (await world.dotfiles.head()) ?? 'none')
  await world.dotfiles.move('other', null)
  await syncs(scene, vm, 'synced')
  check('an empty remote gets the edit', 'mine, too', await line(18, 'trunk'))
  const has = async (number: number) =>
    check(
      `line ${number} is the same at home and in the trunk`,
      await line(number, 'trunk'),
      await line(number, 'home'),
    )
  for (const number of [3, 15, 18]) await has(number)
  await syncs(scene, vm, 'up-to-date')
}

async function clonedAnew(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  const mine = `conflict/${vm.host}`
  const lineIn = async (number: number, branch = world.branch, file = 'dot_labrc') => {
    const commit = await world.dotfiles.head(branch)
    const text = commit && (await world.dotfiles.read(file, commit))
    return lineOf(text, number)
  }
  const conflictIn = async (number: number) => {
    await vm.user(setLine(shared, number, 'mine'))
    await world.dotfiles.commit({ dot_labrc: replacing(number, 'from afar') }, 'From afar')
    await syncs(scene, vm, 'conflict')
    check(`line ${number}: the conflict is published`, 'mine', await lineIn(number, mine))
    check(`line ${number}: the trunk keeps the remote edit`, 'from afar', await lineIn(number))
  }
  await conflictIn(7)
  const url = await vm.askUser(`git -C ${source} remote get-url origin`)
  // the remote's default branch is not the one that the hosts share
  await world.dotfiles.commit({ dot_labother: 'other\n' }, 'Other', { branch: 'other' })
  await world.dotfiles.choose('other')
  // with the remains of an interrupted clone
  await vm.user(`rm -rf ${source}; mkdir -p ${dirname(source)}/.chezmoi-sync.clone/half`)
  await syncs(scene, vm, 'synced')
  const other = (await vm.user('cat .labother', { allow: 'any' })).stdout
  check('no file of the default branch is applied', '', other)
  check(
    'no file of the default branch reaches the trunk',
    'nothing',
    await lineIn(1, world.branch, 'dot_labother'),
  )
  await world.dotfiles.choose(world.branch)
  await world.dotfiles.move('other', null)
  check('the conflict is still published after a new clone', 'mine', await lineIn(7, mine))
  const former = (await world.dotfiles.head(mine)) ?? 'none'
  const shown = () => told(scene, vm, 'chezmoi-show-conflicts', 'user')
  check('the conflict is still shown after a new clone', /^.*\bmine$/m, await shown())

  // the link may lead to a disk that is not mounted now
  await vm.user(`rm -rf ${source}; ln -s /lab-away ${source}`)
  await syncs(scene, vm, 'failed: Cannot clone to .*: something else is there')
  const link = await vm.askUser(`readlink ${source}`)
  check('a link in the place of the clone stays', '/lab-away', link)
  // cloned with plain git, a single branch: it does not track the remote as a jj clone does
  await vm.user(`rm ${source}; git clone -q --single-branch ${url} ${source}`)
  await vm.user(setLine(own[0]!, 3, 'mine'))
  await syncs(scene, vm, 'synced')
  const one = await lineIn(3, world.branch, 'dot_config/lab/one.conf')
  check('an edit in a clone made by git reaches the trunk', 'mine', one)
  await conflictIn(11)
  const kept = `${mine}.former-${former.slice(0, 12)}`
  check('the earlier conflict is kept', 'mine', await lineIn(7, kept))
  check(
    'the earlier conflict is shown under its new name',
    true,
    (await shown()).includes(`${kept}@origin`),
  )
  await vm.user(
    `cd ${source} && jj new @- ${world.branch}@origin && jj resolve --tool :ours dot_labrc`,
  )
  await syncs(scene, vm, 'synced')
  check('the trunk has the edit once it is settled', 'mine', await lineIn(11))
  check(
    'a settled conflict is no longer published',
    'none',
    (await world.dotfiles.head(mine)) ?? 'none',
  )
  check(
    'the home has the text of the trunk',
    (await world.dotfiles.read('dot_labrc')) ?? 'nothing',
    await readHome(vm, shared),
  )
  await syncs(scene, vm, 'up-to-date')
}

import { dirname } from 'node:path'
import { outcome, own, readHome, setLine, setThird, shared, syncByUnit } from './dotfile-sync.ts'
import { fromHome } from '../lab-settings.ts'
import type { Case, Scene } from './family.ts'
import { told } from './told.ts'

/** What becomes of the remote's history, and of a host's clone. */
export const dotfileHistory: Case[] = [
  {
    name: 'rewritten',
    title:
      'the trunk of the dotfiles is rewritten, and removed: nothing of it comes back, no edit is lost, and a remote that is begun anew gets all',
    promise: 'edits',
    own: true,
    limit: 300,
    run: rewritten,
  },
  {
    name: 'cloned-anew',
    title:
      'a host loses its clone while a conflict waits, and is cloned anew, also by hand: what was published stays, and edits and conflicts get through as before',
    promise: 'edits',
    own: true,
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
    return text?.split('\n')[number - 1] ?? 'nothing'
  }
  const leak = (text: string) => text.replace('line 3\n', 'leaked\n')
  await world.dotfiles.commit({ dot_labrc: leak }, 'Leaked')
  outcome(scene, vm, 'synced', await syncByUnit(vm))
  await vm.user(setLine(shared, 15, 'mine'))
  // what conflicts is not in the source, and takes nothing from what is known of the trunk before it
  const clash = (text: string) => text.replace('line 15\n', 'from afar\n')
  await world.dotfiles.commit({ dot_labrc: clash }, 'Clashes')
  outcome(scene, vm, 'conflict', await syncByUnit(vm))
  const other = { branch: 'other', parent: start }
  await world.dotfiles.commit({ dot_labrc: setThird }, 'Other', other)
  const trunk = await world.dotfiles.commit({ dot_labrc: setThird }, 'Rewritten', { parent: start })
  // who looks before anything is synchronized has the look change nothing
  const look = await told(scene, vm, 'chezmoi-show-conflicts', 'user')
  check('both are shown', /\+leaked\n.*\+line three$/ms, look)
  for (const run of ['it', 'the next run, too']) {
    outcome(scene, vm, 'diverged: The trunk was rewritten', await syncByUnit(vm))
    check(`${run}: nothing is pushed`, trunk, await world.dotfiles.head())
    check(`${run}: the edit stays`, 'mine', await line(15, 'home'))
  }
  await vm.user(`cd ${source} && jj rebase --source @- --onto ${world.branch}@origin`)
  outcome(scene, vm, 'synced', await syncByUnit(vm))
  check('the trunk has the edit once its user says so', 'mine', await line(15, 'trunk'))
  check('and not what was taken back', 'line three', await line(3, 'trunk'))
  check('nor has the home', 'line three', await line(3, 'home'))
  // taken back right after it was pushed: this host has not fetched it since
  const pushed = (await world.dotfiles.head())!
  await world.dotfiles.move(world.branch, trunk)
  outcome(scene, vm, 'diverged: The trunk was rewritten', await syncByUnit(vm))
  check('what it pushed is not pushed again', trunk, await world.dotfiles.head())
  await world.dotfiles.move(world.branch, pushed)

  await world.dotfiles.move(world.branch, null)
  await vm.user(setLine(shared, 18, 'mine, too'))
  const names = `\`${world.branch}\` \\(it has other`
  outcome(scene, vm, `failed: The remote has no branch ${names}`, await syncByUnit(vm))
  check('it is not made by itself', 'none', (await world.dotfiles.head()) ?? 'none')
  await world.dotfiles.move('other', null)
  outcome(scene, vm, 'synced', await syncByUnit(vm))
  check('a remote without any branch gets all', 'mine, too', await line(18, 'trunk'))
  const has = async (number: number) =>
    check(`line ${number} at home`, await line(number, 'trunk'), await line(number, 'home'))
  for (const number of [3, 15, 18]) await has(number)
  outcome(scene, vm, 'up-to-date', await syncByUnit(vm))
}

async function clonedAnew(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  const mine = `conflict/${vm.host}`
  const lineOf = async (number: number, branch = world.branch, file = 'dot_labrc') => {
    const commit = await world.dotfiles.head(branch)
    const text = commit && (await world.dotfiles.read(file, commit))
    return text?.split('\n')[number - 1] ?? 'nothing'
  }
  const conflictIn = async (number: number) => {
    const edit = (text: string) => text.replace(`line ${number}\n`, 'from afar\n')
    await vm.user(setLine(shared, number, 'mine'))
    await world.dotfiles.commit({ dot_labrc: edit }, 'From afar')
    outcome(scene, vm, 'conflict', await syncByUnit(vm))
    check(`line ${number}: the conflict is published`, 'mine', await lineOf(number, mine))
    check(`line ${number}: the trunk has it not`, 'from afar', await lineOf(number))
  }
  await conflictIn(7)
  const url = await vm.askUser(`git -C ${source} remote get-url origin`)
  // the remote's own default branch is none that hosts share
  await world.dotfiles.commit({ dot_labother: 'other\n' }, 'Other', { branch: 'other' })
  await world.dotfiles.choose('other')
  // with what is left of a clone that was cut off
  await vm.user(`rm -rf ${source}; mkdir -p ${dirname(source)}/.chezmoi-sync.clone/half`)
  outcome(scene, vm, 'synced', await syncByUnit(vm))
  const other = (await vm.user('cat .labother', { allow: 'any' })).stdout
  check('of the default branch nothing comes', '', other)
  check('nor to the trunk', 'nothing', await lineOf(1, world.branch, 'dot_labother'))
  await world.dotfiles.choose(world.branch)
  await world.dotfiles.move('other', null)
  check('a new clone leaves what the old one has published', 'mine', await lineOf(7, mine))
  const former = (await world.dotfiles.head(mine)) ?? 'none'
  const shown = () => told(scene, vm, 'chezmoi-show-conflicts', 'user')
  check('and it is still shown', /^.*\bmine$/m, await shown())

  // what it leads to may be on a disk that is not there now
  await vm.user(`rm -rf ${source}; ln -s /lab-away ${source}`)
  outcome(scene, vm, 'failed: Cannot clone to .*: something else is there', await syncByUnit(vm))
  const link = await vm.askUser(`readlink ${source}`)
  check('a link in the place of the clone stays', '/lab-away', link)
  // by git alone, and of one branch: nothing in it follows the remote as a clone of jj does
  await vm.user(`rm ${source}; git clone -q --single-branch ${url} ${source}`)
  await vm.user(setLine(own[0]!, 3, 'mine'))
  outcome(scene, vm, 'synced', await syncByUnit(vm))
  const one = await lineOf(3, world.branch, 'dot_config/lab/one.conf')
  check('an edit gets through from a clone of git', 'mine', one)
  await conflictIn(11)
  const kept = `${mine}.former-${former.slice(0, 12)}`
  check('the conflict before it is kept', 'mine', await lineOf(7, kept))
  check('under a name that is shown', true, (await shown()).includes(`${kept}@origin`))
  await vm.user(
    `cd ${source} && jj new @- ${world.branch}@origin && jj resolve --tool :ours dot_labrc`,
  )
  outcome(scene, vm, 'synced', await syncByUnit(vm))
  check('once it is settled, the trunk has it', 'mine', await lineOf(11))
  check('and nothing is published', 'none', (await world.dotfiles.head(mine)) ?? 'none')
  check(
    'the home is as the trunk',
    (await world.dotfiles.read('dot_labrc')) ?? 'nothing',
    await readHome(vm, shared),
  )
  outcome(scene, vm, 'up-to-date', await syncByUnit(vm))
}

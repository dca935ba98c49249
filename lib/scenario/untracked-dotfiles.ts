import { fromHome } from '../lab-settings.ts'
import { lineOf, readHome, setLine, setThird, shared, syncs } from './dotfile-sync.ts'
import type { EditCase, Scene } from './family.ts'

/** Files in the source that jj does not track. */
export const untrackedDotfiles: EditCase = {
  name: 'not-tracked',
  title:
    'a dotfile is ignored by Git, and a directory becomes a repository of its own: both are named, hold nothing else back, and are not replaced by the trunk',
  limit: 300,
  run: notTracked,
}

async function notTracked(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  const inSource = (script: string) => vm.user(`set -e; cd ${source}; ${script}`)
  const inTrunk = async (file: string) => (await world.dotfiles.read(file)) ?? 'nothing'
  const edit = async (line: number, text: string) => {
    await vm.user(setLine(shared, line, text))
    const status = await syncs(scene, vm, 'failed')
    return status
  }
  await world.dotfiles.commit({ 'labown/x': 'x\n' }, 'From afar')
  await syncs(scene, vm, 'synced')

  const mine = 'echo mine | tee dot_labhere dot_labway >/dev/null; echo since >>labown/x'
  await inSource(
    `printf 'dot_labhere\\ndot_labway\\n' >>.git/info/exclude; git init -q labown; ${mine}`,
  )
  const { reason, kept } = await edit(15, 'one')
  check(
    'the reason has the repository',
    /dotfiles in labown .* repository of its own/,
    reason ?? '',
  )
  for (const [file, why] of [
    ['.labhere', /jj does not track it/],
    ['labown', /repository of its own/],
  ] as const)
    check(`${file} is named`, why, kept.find((one) => one.file === file)?.reason ?? 'not')
  check('what Git ignores is at home all the same', 'mine\n', await readHome(vm, '.labhere'))
  check('and in no commit', 'nothing', await inTrunk('dot_labhere'))
  check('what is in the repository is not removed elsewhere', 'x\n', await inTrunk('labown/x'))
  check('and stays as it is here', 'x\nsince\n', await readHome(vm, 'labown/x'))
  check('another edit is in the trunk', 'one', lineOf(await inTrunk('dot_labrc'), 15))

  const trunk = await world.dotfiles.commit({ dot_labway: 'theirs\n', dot_labrc: setThird }, 'Way')
  for (const text of ['two', 'three']) {
    const status = await edit(15, text)
    const way = /^Cannot take the trunk: dot_labway here is in the way/
    check('what is in the way is named', way, status.reason ?? 'no reason')
    check('the trunk stays as it is', trunk, await world.dotfiles.head())
    check('so does the file here', 'mine\n', (await inSource('cat dot_labway')).stdout)
  }
  await inSource('mv dot_labway ~/labmoved')
  const since = await edit(16, 'four')
  check(
    'once it is moved away, theirs is here',
    'theirs\n',
    (await inSource('cat dot_labway')).stdout,
  )
  check('what it had made of the home stays', 'mine\n', await readHome(vm, '.labway'))
  const left = since.kept.find(({ file }) => file === '.labway')
  check('and is named', 'its text is in no commit', left?.reason ?? 'not')
  const lines = (await readHome(vm, shared)).split('\n')
  const both = `${lines[2]}, ${lines[14]}, ${lines[15]}`
  check('with all edits', 'line three, three, four', both)
  check('which the trunk has, too', lines.join('\n'), await inTrunk('dot_labrc'))

  const within = await world.dotfiles.commit({ 'labown/x': (was) => `in front\n${was}` }, 'In it')
  const status = await edit(17, 'five')
  const changed = /^Cannot take the trunk: it changes labown,/
  check('a change in the repository waits', changed, status.reason ?? 'no reason')
  check('and nothing takes its place', within, await world.dotfiles.head())

  await inSource('rm -rf labown/.git .git/info/exclude')
  await syncs(scene, vm, 'synced')
  const all = 'in front\nx\nsince\n'
  check(
    'without a repository there, both edits of it are in the trunk',
    all,
    await inTrunk('labown/x'),
  )
  check('and at home', all, await readHome(vm, 'labown/x'))
  check('what Git ignored is in the trunk', 'mine\n', await inTrunk('dot_labhere'))
  check('so is the last edit', 'five', lineOf(await inTrunk('dot_labrc'), 17))
  await syncs(scene, vm, 'up-to-date')
}

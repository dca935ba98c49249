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
    'the reason names the nested repository',
    /dotfiles in labown .* repository of its own/,
    reason ?? '',
  )
  for (const [file, why] of [
    ['.labhere', /jj does not track it/],
    ['labown', /repository of its own/],
  ] as const)
    check(`status.json names ${file}`, why, kept.find((one) => one.file === file)?.reason ?? 'not')
  check('the file that Git ignores is applied at home', 'mine\n', await readHome(vm, '.labhere'))
  check('the file that Git ignores is not in the trunk', 'nothing', await inTrunk('dot_labhere'))
  check('the nested repository is not removed from the trunk', 'x\n', await inTrunk('labown/x'))
  check(
    'the edit in the nested repository is at home',
    'x\nsince\n',
    await readHome(vm, 'labown/x'),
  )
  check('another edit is in the trunk', 'one', lineOf(await inTrunk('dot_labrc'), 15))

  const trunk = await world.dotfiles.commit({ dot_labway: 'theirs\n', dot_labrc: setThird }, 'Way')
  for (const text of ['two', 'three']) {
    const status = await edit(15, text)
    const way = /^Cannot take the trunk: dot_labway here is in the way/
    check('the reason names the file in the way', way, status.reason ?? 'no reason')
    check('the trunk stays as it is', trunk, await world.dotfiles.head())
    check('the file in the way is unchanged', 'mine\n', (await inSource('cat dot_labway')).stdout)
  }
  await inSource('mv dot_labway ~/labmoved')
  const since = await edit(16, 'four')
  check(
    'the trunk’s file arrives once the other is moved away',
    'theirs\n',
    (await inSource('cat dot_labway')).stdout,
  )
  check('the former file at home stays', 'mine\n', await readHome(vm, '.labway'))
  const left = since.kept.find(({ file }) => file === '.labway')
  check(
    'status.json names the former file at home',
    'its text is in no commit',
    left?.reason ?? 'not',
  )
  const lines = (await readHome(vm, shared)).split('\n')
  const both = `${lines[2]}, ${lines[14]}, ${lines[15]}`
  check('the file at home has all edits', 'line three, three, four', both)
  check('the trunk has all edits', lines.join('\n'), await inTrunk('dot_labrc'))

  const within = await world.dotfiles.commit({ 'labown/x': (was) => `in front\n${was}` }, 'In it')
  const status = await edit(17, 'five')
  const changed = /^Cannot take the trunk: it changes labown,/
  check('the reason names a change in the nested repository', changed, status.reason ?? 'no reason')
  check('the trunk keeps the change in the nested repository', within, await world.dotfiles.head())

  await inSource('rm -rf labown/.git .git/info/exclude')
  await syncs(scene, vm, 'synced')
  const all = 'in front\nx\nsince\n'
  check('both edits are in the trunk without the nested repository', all, await inTrunk('labown/x'))
  check('both edits of that directory are at home', all, await readHome(vm, 'labown/x'))
  check('the file that Git ignored is in the trunk', 'mine\n', await inTrunk('dot_labhere'))
  check('the last edit is in the trunk', 'five', lineOf(await inTrunk('dot_labrc'), 17))
  await syncs(scene, vm, 'up-to-date')
}

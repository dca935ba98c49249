import { fromHome } from '../lab-settings.ts'
import { answerWith } from '../vm/served.ts'
import { lineOf, own, readHome, setLine, shared, syncs } from './dotfile-sync.ts'
import type { EditCase, Scene } from './family.ts'
import { told } from './told.ts'

/** The commands by which users inspect the sync and settle what it leaves to them. */
export const dotfileCommands: EditCase[] = [
  {
    name: 'commands',
    title:
      'edits and files put aside are listed, files are restored by name from any directory or all at once, and nothing in the way is lost',
    limit: 300,
    run: restored,
  },
  {
    name: 'home-and-source',
    title:
      'one host edits the same line at home and in the source: both texts are shown, with the remote and without, and the suggested commands settle it',
    limit: 300,
    run: homeAndSource,
  },
]

async function restored(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const ask = (command: string): Promise<string> => told(scene, vm, command, 'user')
  const exits = async (command: string): Promise<number> =>
    (await vm.user(command, { allow: 'any' })).code
  const never = 'Dotfiles have not been synchronized yet'
  check('chezmoi-status says that no sync has run yet', never, await ask('chezmoi-status'))
  await syncs(scene, vm, 'up-to-date')
  check(
    'root is not shown the status of another user',
    never,
    await told(scene, vm, 'chezmoi-status'),
  )
  await vm.user(setLine(shared, 3, 'line three'))
  const edited = await ask('chezmoi-status')
  check('chezmoi-status names the edit before the sync', /^edited: +MM? \.labrc$/m, edited)
  await syncs(scene, vm, 'synced')
  const clean = await ask('chezmoi-status')
  check(
    'chezmoi-status names no edit after the sync',
    /^(?!.*^edited:)(?!.*^aside:).*^outcome: +synced/ms,
    clean,
  )
  check(
    'chezmoi-restore-kept lists nothing at first',
    'Nothing was put aside',
    await ask('chezmoi-restore-kept'),
  )
  check(
    'chezmoi-restore-kept --all has nothing to restore at first',
    0,
    await exits('chezmoi-restore-kept --all'),
  )

  const [one, two] = ['.labmod', 'labdir/in/.lab two']
  const script = "#!/bin/sh\nsed '/afar/d'\necho from afar\n"
  await vm.user(`mkdir -p labdir/in; echo one >${one}; echo two >'${two}'`)
  const modified = { modify_dot_labmod: script, 'labdir/in/modify_dot_lab two': script }
  await world.dotfiles.commit(modified, 'From afar')
  // with a clock that is an hour ahead and is set back afterwards
  await vm.root("date -s '+1 hour'")
  await syncs(scene, vm, 'synced')
  await vm.root("date -s '-1 hour'")
  const texts = async (): Promise<string> => (await readHome(vm, one)) + (await readHome(vm, two))
  const both = 'one\nfrom afar\ntwo\nfrom afar\n'
  check('the scripts have changed both files', both, await texts())
  check(
    'chezmoi-status counts the files put aside',
    /^aside: +2 files/m,
    await ask('chezmoi-status'),
  )
  const listed = (await ask('chezmoi-restore-kept')).replaceAll(/^\S+ +/gm, '')
  check('chezmoi-restore-kept lists both files', `${one}\nlabdir/in/.lab\\ two`, listed)
  for (const command of ['chezmoi-restore-kept', 'chezmoi-status', 'chezmoi-show-conflicts'])
    check(`${command} refuses an unknown flag`, 2, await exits(`${command} --nope`))
  check(
    'restoring a file that was not put aside is refused',
    1,
    await exits('chezmoi-restore-kept .labrc'),
  )
  // if one of several is missing, none is restored
  check(
    'a restore of two files, one not put aside, is refused',
    1,
    await exits(`chezmoi-restore-kept ${one} .labrc`),
  )
  check('a refused restore changes no file', both, await texts())
  await ask(
    `chezmoi-restore-kept "$HOME/${one}" && cd labdir/in && chezmoi-restore-kept '.lab two'`,
  )
  check('both files are restored', 'one\ntwo\n', await texts())
  await ask('chezmoi-restore-kept --all')
  check('chezmoi-restore-kept --all restores the replaced texts', both, await texts())
  await vm.user(`echo one >${one}`)
  await ask(`chezmoi-restore-kept ${one} '${two}'`)
  check('the second is restored if the first already is', 'one\ntwo\n', await texts())
  await ask(`chezmoi-restore-kept '${two}'`)

  const ways = { file: ['echo it >labdir', 'cat'], link: ['ln -s it labdir', 'readlink'] }
  for (const [kind, [make, read]] of Object.entries(ways)) {
    await vm.user(`rm -r labdir && ${make}`)
    await ask(`chezmoi-restore-kept '${two}'`)
    check(`the file is restored where a ${kind} was in the way`, 'two\n', await readHome(vm, two))
    await vm.user('mv labdir labdir.restored')
    await ask('chezmoi-restore-kept labdir')
    const { stdout } = await vm.user(`${read} labdir`, { allow: 'any' })
    check('what was in the way can be restored', 'it\n', stdout)
    await vm.user('rm -f labdir && mv labdir.restored labdir')
  }
  const { stdout } = await vm.user('find . -maxdepth 2 -name ".restored*" ! -path "./.local/*"')
  check('a restore leaves no temporary files', '', stdout)
}

async function homeAndSource(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const ask = (command: string): Promise<string> => told(scene, vm, command, 'user')
  const source = fromHome(world.paths.dotfiles)
  const trunk = async (): Promise<string> => lineOf(await world.dotfiles.read('dot_labrc'), 7)
  const home = async (): Promise<string> => lineOf(await readHome(vm, shared), 7)
  const spaced = 'dot_lab two'
  await world.dotfiles.commit(
    { [spaced]: (await world.dotfiles.read('dot_labrc')) ?? null },
    'Spaced',
  )
  await syncs(scene, vm, 'synced')
  const files = {
    [shared]: 'dot_labrc',
    [own[0]!]: 'dot_config/lab/one.conf',
    '.lab two': spaced,
  }
  for (const [file, inSource] of Object.entries(files))
    await vm.user(
      `${setLine(file, 7, 'at home')}; ${setLine(`${source}/${inSource}`, 7, 'in the source')}`,
    )
  await syncs(scene, vm, 'conflict')
  check('the file at home keeps its own text', 'at home', await home())
  check(
    'chezmoi-status names the conflict',
    /^conflict: dot_labrc of /m,
    await ask('chezmoi-status'),
  )
  const shown = await ask('chezmoi-show-conflicts')
  check(
    'chezmoi-show-conflicts shows both texts',
    /^conflict: dot_labrc$.*\+at home$.*\+in the source$/ms,
    shown,
  )
  check(
    'chezmoi-show-conflicts --offline shows the same',
    shown,
    await ask('chezmoi-show-conflicts --offline'),
  )
  // if the remote is away, the output says so and is otherwise the same
  const url = await vm.askUser(`git -C ${source} remote get-url origin`)
  const [path, instead] = ['/gone.git', 'url.http://git.lab/gone.git']
  answerWith(vm.host, { path, status: 503 })
  await vm.user(`git config --global ${instead}.insteadOf ${url}`)
  const away = '(the remote cannot be reached: this is as of the last fetch)'
  check(
    'the output says that the remote is away',
    `${away}\n${shown}`,
    await ask('chezmoi-show-conflicts'),
  )
  await vm.user(`git config --global --remove-section ${instead}`)
  const names = [`conflict/${vm.host}.home`, `conflict/${vm.host}`]
  const heads = await Promise.all(names.map((name) => world.dotfiles.head(name)))
  const at = heads.find((commit) => commit !== undefined) ?? world.start.dotfiles
  for (const file of Object.values(files)) {
    const published = await world.dotfiles.read(file, at)
    check(`the text at home of ${file} is published`, 'at home', lineOf(published, 7))
  }

  scene.must('the output names the command to settle it', /chezmoi re-add \S+/, shown)
  for (const settle of new Set(shown.match(/chezmoi re-add .+(?= for the text at home)/g)))
    await ask(settle.replace('re-add', 're-add --no-tty'))
  await syncs(scene, vm, 'synced')
  check('the trunk has the chosen text', 'at home', await trunk())
  check('the file at home has the chosen text', 'at home', await home())
  check('nothing conflicts any more', 'No conflicts', await ask('chezmoi-show-conflicts'))
  await syncs(scene, vm, 'up-to-date')
  for (const name of names)
    check(`${name} is no longer a bookmark`, 'gone', (await world.dotfiles.head(name)) ?? 'gone')

  // two source names for one target: no line conflicts, but chezmoi would accept neither
  await world.dotfiles.commit({ private_dot_labtwo: 'from afar\n' }, 'Private')
  await vm.user(`echo mine >${source}/dot_labtwo`)
  await syncs(scene, vm, 'conflict')
  const pushed = await world.dotfiles.read('dot_labtwo')
  check('a second source name of a file is not pushed', 'not there', pushed ?? 'not there')
  await vm.user(`rm ${source}/dot_labtwo`)
  await syncs(scene, vm, 'synced')
  check(
    'the file is applied once it has one source name',
    'from afar\n',
    await readHome(vm, '.labtwo'),
  )

  // an edit at home must not make a file public that the source has made private
  await vm.user(
    `mv ${source}/dot_labrc ${source}/private_dot_labrc; ${setLine(shared, 9, 'at home')}`,
  )
  await syncs(scene, vm, 'conflict')
  await vm.user('chezmoi apply --force .labrc')
  // the change of the source was pushed to the trunk at once
  await syncs(scene, vm, 'up-to-date')
  const mode = await vm.askUser('stat -c %a .labrc')
  check('the file is private at home', '600', mode)
  const there = (await world.dotfiles.read('private_dot_labrc')) !== undefined
  check('the file is private in the trunk', true, there)
}

import { readHome, setLine, shared, syncs } from './dotfile-sync.ts'
import type { EditCase, Scene } from './family.ts'
import { told } from './told.ts'

/** A user brings back files and directories that the source has replaced. */
export const putBack: EditCase = {
  name: 'put-back',
  title:
    'a file and a directory replace each other: each can be brought back by any path, and no text is lost',
  limit: 300,
  run: comesBack,
}

const lines = (text: string): string => text.split('\n').filter(Boolean).toSorted().join(', ')

async function comesBack(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const ask = (command: string): Promise<string> => told(scene, vm, command, 'user')
  await vm.user('echo mine >.labmod; echo own >labapp; chmod 600 labapp; echo before >.labplain')
  const trunk = (await world.dotfiles.head())!
  const theirs = { branch: 'conflict/elsewhere', parent: trunk }
  await world.dotfiles.commit({ dot_inputrc: 'theirs\n' }, 'Theirs', theirs)
  await world.dotfiles.commit(
    {
      modify_dot_labmod: '#!/bin/sh\ncat\necho from afar\n',
      'labapp/x': 'x\n',
      '.chezmoiremove': 'labapp/old/*\n',
      dot_labplain: 'of all\n',
      dot_inputrc: 'ours\n',
    },
    'From afar',
  )
  await syncs(scene, vm, 'synced')
  await vm.user(setLine(shared, 7, 'edited since'))
  const status = await ask('chezmoi-status')
  const says: [string, RegExp][] = [
    ['the outcome', /^outcome: +synced$/m],
    ['the trunk', new RegExp(`^trunk: +${await world.dotfiles.head()}$`, 'm')],
    ['a file that is kept', /^kept: +\.labplain \(was here before the dotfiles\)$/m],
    ['a conflict of another host', /^conflict: dot_inputrc of elsewhere /m],
    ['the number of files put aside', /^aside: +2 files/m],
    ['a file edited since', /^edited: +M.* \.labrc$/m],
  ]
  for (const [what, pattern] of says) check(`the status names ${what}`, pattern, status)
  const written = await vm.user('chezmoi-status --json | cmp - /var/lib/chezmoi-sync/status.json', {
    allow: 'any',
  })
  check('chezmoi-status --json prints status.json unchanged', 0, written.code)
  const listed = (text: string) => lines(text.replaceAll(/^\S+Z {2}/gm, ''))
  check(
    'chezmoi-restore-kept lists the files put aside',
    '.labmod, labapp',
    listed(await ask('chezmoi-restore-kept')),
  )
  const app = 'cat labapp; stat -c %a labapp'
  const texts = `cd; find .labmod labapp .labplain /var/lib/chezmoi-sync/kept -type f -exec cat {} + | sort -u`
  const all = 'before, from afar, mine, own, since, x'
  // each replaces the one before: a file a directory, and the other way round
  await ask('cd .config && chezmoi-restore-kept ../labapp')
  check(
    'the file replaces the directory, with its text and mode',
    'own\n600\n',
    (await vm.user(app)).stdout,
  )
  await vm.user('echo since >>labapp')
  await ask('chezmoi-restore-kept "$HOME/labapp/x"')
  check('the directory replaces the file', 'x\n', await readHome(vm, 'labapp/x'))
  check(
    'chezmoi-restore-kept lists every replaced path',
    '.labmod, labapp, labapp/x',
    listed(await ask('chezmoi-restore-kept')),
  )
  await ask('chezmoi-restore-kept --all')
  check(
    '--all restores the newest copy of each path',
    'own\nsince\n600\nmine\n',
    (await vm.user(`${app}; cat .labmod`)).stdout,
  )
  check('no text is lost', all, lines((await vm.user(texts)).stdout))
  await syncs(scene, vm, 'synced')
  check('the next sync loses no text', all, lines((await vm.user(texts)).stdout))
}

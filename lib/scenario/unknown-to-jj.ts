import { fromHome } from '../lab-settings.ts'
import { lineOf, readHome, setLine, shared, syncs } from './dotfile-sync.ts'
import type { EditCase, Scene } from './family.ts'

/** Filters and sparse checkouts of git, which jj does not know: a sync, which uses jj, must publish neither's effect. */
export const unknownToJj: EditCase = {
  name: 'unknown-to-jj',
  title:
    'git filters a dotfile, as git-crypt does, or leaves others out by a sparse checkout: neither plain text nor deletions are published',
  limit: 300,
  run: filteredAndLeftOut,
}

async function filteredAndLeftOut(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  const inSource = (script: string) => vm.user(`set -e; cd ${source}; ${script}`)
  const inTrunk = async (file: string) => (await world.dotfiles.read(file)) ?? 'nothing'
  const failedAfter = async (line: number, text: string): Promise<string> => {
    await vm.user(setLine(shared, line, text))
    return (await syncs(scene, vm, 'failed')).reason ?? 'no reason'
  }
  await world.dotfiles.commit(
    {
      '.gitattributes': 'dot_labsecret filter=seal\ndot_labnew filter=seal\n',
      dot_labsecret: 'SEALED\n',
      'labother/x': 'x\n',
    },
    'From afar',
  )
  await syncs(scene, vm, 'synced')

  // as after a user has unlocked the encrypted files
  await inSource(`git config filter.seal.clean 'tr a-z A-Z'; git config filter.seal.smudge 'tr A-Z a-z'
    echo sealed >dot_labsecret; echo new >dot_labnew`)
  check('the file is named', /dot_labsecret/, await failedAfter(15, 'one'))
  check('what is sealed is not published', 'SEALED\n', await inTrunk('dot_labsecret'))
  check('nor what is new', 'nothing', await inTrunk('dot_labnew'))
  check('another edit is', 'one', lineOf(await inTrunk('dot_labrc'), 15))
  check('and it stays open here', 'sealed\n', (await inSource('cat dot_labsecret')).stdout)
  await inSource(
    'echo SEALED >dot_labsecret; rm dot_labnew; git config --remove-section filter.seal',
  )
  // the sync had applied the plain text of the source to the home
  await syncs(scene, vm, 'synced')
  check('once it is sealed again, so it is at home', 'SEALED\n', await readHome(vm, '.labsecret'))

  const head = (await world.dotfiles.head()) ?? 'no trunk'
  await inSource('git sparse-checkout set --no-cone "/*" "!labother"')
  check('what left files out is named', /sparse-checkout/, await failedAfter(16, 'two'))
  check('nothing is removed elsewhere', head, await world.dotfiles.head())
  await inSource('git sparse-checkout disable')
  await syncs(scene, vm, 'synced')
  check('what was left out is in the trunk', 'x\n', await inTrunk('labother/x'))
  check('and at home', 'x\n', await readHome(vm, 'labother/x'))
  check('so is the last edit', 'two', lineOf(await inTrunk('dot_labrc'), 16))
}

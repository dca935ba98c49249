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
  check('the reason names the filtered file', /dot_labsecret/, await failedAfter(15, 'one'))
  check(
    'the plain text of the filtered file is not published',
    'SEALED\n',
    await inTrunk('dot_labsecret'),
  )
  check('a new filtered file is not published', 'nothing', await inTrunk('dot_labnew'))
  check('another edit reaches the trunk', 'one', lineOf(await inTrunk('dot_labrc'), 15))
  check(
    'the filtered file stays in plain text here',
    'sealed\n',
    (await inSource('cat dot_labsecret')).stdout,
  )
  await inSource(
    'echo SEALED >dot_labsecret; rm dot_labnew; git config --remove-section filter.seal',
  )
  // the sync had applied the plain text of the source to the home
  await syncs(scene, vm, 'synced')
  check(
    'a file sealed again in the source is sealed at home',
    'SEALED\n',
    await readHome(vm, '.labsecret'),
  )

  const head = (await world.dotfiles.head()) ?? 'no trunk'
  await inSource('git sparse-checkout set --no-cone "/*" "!labother"')
  check('the reason names sparse-checkout', /sparse-checkout/, await failedAfter(16, 'two'))
  check('files left out are not removed from the trunk', head, await world.dotfiles.head())
  await inSource('git sparse-checkout disable')
  await syncs(scene, vm, 'synced')
  check('the file left out is in the trunk', 'x\n', await inTrunk('labother/x'))
  check('the file left out is back at home', 'x\n', await readHome(vm, 'labother/x'))
  check('the last edit is in the trunk', 'two', lineOf(await inTrunk('dot_labrc'), 16))
}

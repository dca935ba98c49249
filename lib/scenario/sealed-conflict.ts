import { lineOf, own, readHome, setLine, shared, syncs } from './dotfile-sync.ts'
import { fromHome } from '../lab-settings.ts'
import type { EditCase, Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { told } from './told.ts'

/** Conflicts of several kinds at once, and how each is settled. */
export const sealedConflict: EditCase = {
  name: 'sealed-conflict',
  title:
    'encrypted files, a file edited at home and another host’s file conflict: the commands that are shown settle each one alone, and publish no decrypted text',
  limit: 400,
  run: sealedConflicts,
}

const inOrder = (texts: string[]): string => texts.toSorted().join(', ')

/** Sets up age encryption for the user's chezmoi. @returns a function that encrypts a text for the user */
async function sealing(vm: Machine): Promise<(text: string) => Promise<string>> {
  const { armor, Encrypter, generateX25519Identity, identityToRecipient } =
    await import('age-encryption')
  const identity = await generateX25519Identity()
  const recipient = await identityToRecipient(identity)
  const settings = `encryption = "age"\n[age]\nidentity = "~/.labidentity"\nrecipient = "${recipient}"\n`
  const user = { user: true, mode: '0600' }
  const home = await vm.askUser('pwd')
  await vm.write(`${home}/.labidentity`, `${identity}\n`, user)
  await vm.write(`${home}/.config/chezmoi/chezmoi.toml`, settings, user)
  return async (text) => {
    const encrypter = new Encrypter()
    encrypter.addRecipient(recipient)
    return armor.encode(await encrypter.encrypt(text))
  }
}

async function sealedConflicts(scene: Scene): Promise<void> {
  const { vm, world, check, must } = scene
  const source = fromHome(world.paths.dotfiles)
  const [sealed, former] = ['encrypted_dot_labkey.age', 'encrypted_dot_labold.age']
  const mine = `conflict/${vm.host}`
  const seal = await sealing(vm)
  const first = { [sealed]: await seal('secret\n'), [former]: await seal('old\n') }
  const start = await world.dotfiles.commit(first, 'Sealed')
  await syncs(scene, vm, 'synced')

  const third = (text: string) => (was: string) => was.replace('two 3\n', `${text}\n`)
  const of = { branch: 'conflict/elsewhere', parent: start }
  const two = 'dot_config/lab/two.conf'
  await world.dotfiles.commit({ [two]: third('elsewhere') }, 'Home of elsewhere, in conflict', of)
  // of an earlier clone of this host
  const lost = { branch: `${mine}.former-${start.slice(0, 12)}`, parent: start }
  await world.dotfiles.commit({ [former]: await seal('old\nof the former\n') }, 'Former', lost)
  const afar = {
    [sealed]: await seal('secret\nfrom afar\n'),
    [former]: await seal('old\nfrom afar\n'),
    [two]: third('of the trunk'),
  }
  await world.dotfiles.commit(afar, 'From afar')
  await vm.user(`echo here >>.labkey; ${setLine(shared, 7, 'at home')}
    ${setLine(`${source}/dot_labrc`, 7, 'in the source')}`)
  const status = await syncs(scene, vm, 'conflict')
  const files = (host: string) =>
    inOrder(status.conflicts.flatMap((one) => (one.host === host ? one.files : [])))
  check(
    'status.json lists this host’s conflicts',
    inOrder(['dot_labrc', sealed, former]),
    files(vm.host),
  )
  check('status.json lists the other host’s conflict', two, files('elsewhere'))
  const seventh = async (file: string, branch: string) => {
    const commit = await world.dotfiles.head(branch)
    return lineOf(commit && (await world.dotfiles.read(file, commit)), 7)
  }
  check('the commit in the source is published', 'in the source', await seventh('dot_labrc', mine))
  check(
    'the edit at home is published beside the commit',
    'at home',
    await seventh('dot_labrc', `${mine}.home`),
  )
  check('the file at home stays', 'at home', lineOf(await readHome(vm, shared), 7))
  check('the decrypted file at home stays', 'secret\nhere\n', await readHome(vm, '.labkey'))

  const show = (): Promise<string> => told(scene, vm, 'chezmoi-show-conflicts', 'user')
  const named = (text: string) => inOrder(text.match(/^(conflict: .*|No conflicts)$/gm) ?? [])
  const shown = await show()
  const ours = ['conflict: dot_labrc', `conflict: ${sealed}`]
  const theirs = `conflict: ${two}`
  check(
    'chezmoi-show-conflicts shows every conflict',
    inOrder([theirs, `conflict: ${former}`, ...ours]),
    named(shown),
  )
  check('chezmoi-show-conflicts shows the edit at home', /^ +\+at home$/m, shown)
  check('chezmoi-show-conflicts shows no ciphertext', /^(?![^]*BEGIN AGE)/, shown)
  check(
    'the other host’s conflict is left to that host',
    /chezmoi-show-conflicts on elsewhere, /,
    shown,
  )

  // follow the instructions that are shown: first for the encrypted file, keeping both texts
  const begin = /cd (\S+) && (jj new .*), then$/m.exec(shown)
  const [compare, ofFormer] = [sealed, former].map(
    (file) => new RegExp(`^ *(diff <\\(git show \\w+:${file} .*)$`, 'm').exec(shown)?.[1],
  )
  const encrypt = /(chezmoi encrypt) <file> (>.*)$/m.exec(shown)
  const compared = await vm.user(`cd ${begin?.[1]}; ${compare}`, { allow: 'any' })
  must(
    'the two encrypted texts can be compared',
    '2c2\n< here\n---\n> from afar\n',
    compared.stdout,
  )
  const older = await vm.user(`cd ${begin?.[1]}; ${ofFormer}`, { allow: 'any' })
  check(
    'the texts of the former clone can be compared',
    '2c2\n< of the former\n---\n> from afar\n',
    older.stdout,
  )
  await world.dotfiles.move(lost.branch, null)
  await vm.user(`cd ${begin?.[1]} && ${begin?.[2]} && printf 'secret\nhere\nfrom afar\n' >/tmp/lab-both &&
    ${encrypt?.[1]} /tmp/lab-both ${encrypt?.[2]}`)
  await syncs(scene, vm, 'conflict')
  check(
    'the settled file has both texts',
    'secret\nhere\nfrom afar\n',
    await readHome(vm, '.labkey'),
  )
  const left = await show()
  check('the remaining conflicts are shown', inOrder([theirs, ours[0]!]), named(left))
  const readd = /chezmoi re-add (\S+) for/.exec(left)?.[1]
  await vm.user(`chezmoi re-add --no-tty ${readd}`)
  await syncs(scene, vm, 'synced')
  check('the edit at home is in the trunk', 'at home', await seventh('dot_labrc', world.branch))
  for (const name of [mine, `${mine}.home`])
    check(`the branch ${name} is gone`, 'gone', (await world.dotfiles.head(name)) ?? 'gone')
  check('the other host’s conflict is still shown', theirs, named(await show()))
  check(
    'the trunk’s text of the other conflict is applied',
    'of the trunk',
    lineOf(await readHome(vm, own[1]!), 3),
  )
  await syncs(scene, vm, 'up-to-date')

  // the plain text of an encrypted file is in no commit, and must not get into one
  await vm.user(`echo 'at home alone' >>.labkey; printf 'in the source\n' >/tmp/lab-both
    cd ${source} && chezmoi encrypt /tmp/lab-both >${sealed}`)
  const both = await syncs(scene, vm, 'conflict')
  const reason = both.kept.find(({ file }) => file === '.labkey')?.reason
  check('a file edited at home and in the source is named', /^edited here and in/, reason)
  for (const name of [mine, `${mine}.home`]) {
    const commit = await world.dotfiles.head(name)
    const text = commit && (await world.dotfiles.read(sealed, commit))
    check(`${name} publishes no plain text`, /^(nothing|-----BEGIN AGE)/, text ?? 'nothing')
  }
  await vm.user('chezmoi apply --force .labkey')
  await syncs(scene, vm, 'up-to-date')
  check(
    'chezmoi apply --force takes the text of the source',
    'in the source\n',
    await readHome(vm, '.labkey'),
  )
}

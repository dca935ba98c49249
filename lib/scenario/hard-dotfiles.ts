import { own, readHome, setLine, setThird, shared, syncs } from './dotfile-sync.ts'
import { fromHome } from '../lab-settings.ts'
import type { EditCase, Scene } from './family.ts'

/** Sources that cannot be applied as a whole. */
export const hardDotfiles: EditCase[] = [
  {
    name: 'half-broken',
    title:
      'some dotfiles cannot be read, generated, put aside or captured: each is named, all others are applied and captured, and scripts run in order',
    limit: 400,
    run: halfBroken,
  },
]

/** A script that records that it ran, and whether another file was there by then. */
const notes = (name: string, more = ''): string =>
  `#!/bin/sh\necho "${name} $(cat ~/.labplain 2>/dev/null)" >>~/labnotes\n${more}`

/** Looks like a secret to chezmoi; split in two so that secret scanners do not report this file. */
const token = `ghp_${'aBcD1234eFgH5678iJkL9012mNoP3456qRsT'}`

async function halfBroken(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  // uses up the whole limit for files that are put aside
  const fill = 'd=/var/lib/chezmoi-sync/kept; mkdir -p $d; fallocate --length 256M $d/.lab-fill'
  const noKey = '[age]\\nidentity = "~/no"\\nrecipient = "no"\\n'
  // the runtime directory of a user session, which the second run sees: a script of the first starts it
  const { user } = vm.vm
  await vm.root(`install -d -m 700 -o ${user} /run/user/$(id -u ${user})`)
  await vm.user(`mkdir -p .config/chezmoi; printf 'encryption = "age"\\n${noKey}' >.config/chezmoi/chezmoi.toml
    ${fill}; mkfifo .labpipe; echo mine | tee .labmod .labmade .labold >/dev/null`)
  const broken = { 'dot_labt.tmpl': '{{ fail "no" }}\n', 'encrypted_dot_labkey.age': 'sealed\n' }
  await world.dotfiles.commit(
    {
      ...broken,
      dot_labrc: setThird,
      dot_labplain: 'there\n',
      dot_labpipe: 'x\n',
      modify_dot_labmod: '#!/bin/sh\ncat\necho from afar\n',
      create_dot_labmade: 'theirs\n',
      remove_dot_labold: '',
      // starts a second run during the first, by the command name that a login shell finds
      'run_once_before_zero.sh': notes('before', 'chezmoi-sync >~/labsecond 2>&1\n'),
      'run_once_one.sh': notes('at last', 'exit 3\n'),
      'run_after_two.sh': notes('after'),
    },
    'From afar',
  )
  await vm.user(`${setLine(shared, 15, 'at home')}; rm ${own[1]}
    echo '{{ fail "here" }}' | tee ${source}/dot_labu.tmpl >${source}/dot_labv.tmpl; echo new >${source}/dot_labnew`)
  const reasons: [string, RegExp][] = [
    ['.labt', /^cannot be applied: template: /],
    ['.labu', /^cannot be applied: template: /],
    ['.labv', /^cannot be applied: template: /],
    ['.labkey', /^cannot be applied: /],
    ['.labpipe', /^neither a file nor a directory nor a link$/],
    ['.labmod', /^cannot be put aside: \S+ may hold only \d+ bytes$/],
    ['.labold', /in no commit/],
    [own[1]!, /^deleted here$/],
    ['one.sh', /^cannot be applied: exit status 3$/],
  ]
  const status = await syncs(scene, vm, 'failed: Cannot apply')
  for (const [file, reason] of reasons)
    check(
      `${file} is named in the status`,
      reason,
      status.kept.find((one) => one.file === file)?.reason ?? 'not',
    )
  const others = status.kept.filter(({ file }) => !reasons.some(([one]) => one === file))
  check('the status names no other file', '', others.map(({ file }) => file).join(' '))
  for (const file of ['.labt', '.labu', '.labv', '.labkey', 'one.sh'])
    check(`the reason of the run names ${file}`, true, (status.reason ?? '').includes(`${file}: `))
  const mine = 'cat .labmod .labmade .labold; stat -c %F .labpipe'
  const theirs = 'mine\nmine\nmine\nfifo\n'
  check('the user’s own files stay', theirs, (await vm.user(mine, { allow: 'any' })).stdout)
  check(
    'no broken file is created',
    '',
    (await vm.user('ls -d .labt .labu .labv .labkey', { allow: 'any' })).stdout,
  )
  check(
    'the deleted file stays deleted',
    'no\n',
    (await vm.user(`test -e ${own[1]} || echo no`)).stdout,
  )
  const second = /^chezmoi-sync: locked: Another run has not ended yet \(process \d+\)$/
  check('a second run names the first', second, (await readHome(vm, 'labsecond')).trim())
  const order = 'before \nat last there\nafter there\n'
  check('scripts run before, among and after the files', order, await readHome(vm, 'labnotes'))
  const rc = (await readHome(vm, shared)).split('\n')
  check(
    'all other files are applied',
    'line three, at home, new',
    `${rc[2]}, ${rc[14]}, ${(await readHome(vm, '.labnew')).trim()}`,
  )
  const inTrunk = async (file: string) => (await world.dotfiles.read(file)) ?? 'nothing'
  check('an edit at home is in the trunk', rc.join('\n'), await inTrunk('dot_labrc'))
  check('a new file is in the trunk', 'new\n', await inTrunk('dot_labnew'))
  for (const file of ['dot_labu.tmpl', 'dot_labv.tmpl'])
    check(`${file}, broken here, is not in the trunk`, 'nothing', await inTrunk(file))
  check(
    'a file deleted at home stays in the trunk',
    /^two 1\n/,
    await inTrunk('dot_config/lab/two.conf'),
  )

  await world.dotfiles.commit(
    {
      'dot_labt.tmpl': 'fine\n',
      'encrypted_dot_labkey.age': null,
      'run_once_one.sh': notes('now'),
      // the dotfiles never created this file: the user did
      create_dot_labmade: null,
      dot_labmade: 'theirs\n',
    },
    'Mended',
  )
  // after a manual apply chezmoi believes that it wrote the existing text
  await vm.user(
    `rm /var/lib/chezmoi-sync/kept/.lab-fill .labpipe; echo fine | tee ${source}/dot_labu.tmpl >${source}/dot_labv.tmpl
    chezmoi apply --force .labmade`,
  )
  const next = await syncs(scene, vm, 'synced')
  const left = [own[1]!, '.labmade', '.labmod', '.labold']
  check(
    'the status names no repaired file',
    left.toSorted().join(' '),
    next.kept
      .map(({ file }) => file)
      .toSorted()
      .join(' '),
  )
  const texts = await vm.user('cat .labt .labu .labv .labpipe .labmod .labmade .labold')
  check(
    'repaired files are applied, the user’s own stay',
    'fine\nfine\nfine\nx\nmine\nfrom afar\nmine\nmine\n',
    texts.stdout,
  )
  const again = `${order}now there\nafter there\n`
  check('scripts run again, in their order', again, await readHome(vm, 'labnotes'))
  check('the repaired template is in the trunk', 'fine\n', await inTrunk('dot_labu.tmpl'))
  const aside = await vm.user('find /var/lib/chezmoi-sync/kept -type f -exec cat {} +')
  check('the text that a script has changed is put aside', 'mine\n', aside.stdout)

  const refused = own[0]!
  await vm.user(`printf '[add]\\nsecrets = "error"\\n' >>.config/chezmoi/chezmoi.toml
    echo 'token = "${token}"' >>${refused}; ${setLine(shared, 17, 'beside it')}`)
  await syncs(scene, vm, `failed: Cannot capture ${refused}: `)
  const published = (await inTrunk(`dot_${refused.slice(1)}`)).includes(token)
  check('whether the trunk has the file that chezmoi refuses', false, published)
  check(
    'a file after the refused one is in the trunk',
    await readHome(vm, shared),
    await inTrunk('dot_labrc'),
  )
  await vm.user(`sed -i /token/d ${refused}`)
  // never up-to-date: a script of these dotfiles runs each time
  await syncs(scene, vm, 'synced')
}

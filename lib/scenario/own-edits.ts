import { fromHome } from '../lab-settings.ts'
import {
  editAndSync,
  lineOf,
  outcome,
  own,
  readHome,
  replacing,
  setLine,
  setThird,
  shared,
  syncs,
} from './dotfile-sync.ts'
import type { EditCase, Scene } from './family.ts'
import { git } from './remote.ts'
import { told } from './told.ts'

/** Unusual ways in which the user of one host changes dotfiles. */
export const ownEdits: EditCase[] = [
  {
    name: 'removed-in-source',
    title:
      'a file is edited at home and removed in the source: the edit stays, and other edits are still synced',
    limit: 300,
    run: removedInSource,
  },
  {
    name: 'edited-meanwhile',
    title: 'a file is edited at home right before a sync writes it: the same run merges both edits',
    limit: 300,
    run: editedMeanwhile,
  },
  {
    name: 'put-aside',
    title:
      'the source starts to modify a file that only this host has: its text is put aside, and can be put back',
    limit: 300,
    run: putAside,
  },
  {
    name: 'taken-back',
    title:
      'an edit is added to the source and taken out again before it is committed: the text at home, now the only one, stays and is named',
    limit: 300,
    run: takenBack,
  },
  {
    name: 'other-kinds',
    title:
      'the source puts other kinds of files where a user has files, directories and links: the user’s stay and are named, and all else is applied',
    limit: 300,
    run: otherKinds,
  },
  {
    name: 'own-ways',
    title:
      'a user has set a name in jj, adds a large file, describes a change and edits a template: all is pushed under that name except the template, which stays',
    limit: 300,
    run: ownWays,
  },
  {
    name: 'unfinished',
    title:
      'conflict markers in a file, an unfinished git merge or rebase and a branch of the user’s: none is pushed, and all are left to the user',
    limit: 300,
    run: unfinished,
  },
]

async function removedInSource(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const [file, text] = [own[0]!, 'mine']
  await vm.user(`${setLine(file, 3, text)}; ${setLine(shared, 15, text)}
    cd ${fromHome(world.paths.dotfiles)} && rm dot_config/lab/one.conf && echo ${file} >.chezmoiremove`)
  await syncs(scene, vm, 'synced')
  const status = await syncs(scene, vm, 'up-to-date')
  check('the edit is still there', text, lineOf(await readHome(vm, file), 3))
  check(
    'status.json lists the edited file as kept',
    file,
    status.kept.map((one) => one.file).join(),
  )
  const line = lineOf(await world.dotfiles.read('dot_labrc'), 15)
  check('the edit of another file reaches the trunk', text, line)
}

async function editedMeanwhile(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const line = async (number: number): Promise<string> => lineOf(await readHome(vm, shared), number)
  // chezmoi runs it after the sync has captured the edits and before it writes a file; its child process outlives it
  const script = `#!/bin/sh\n${setLine('.labrc', 15, 'edited meanwhile')}
setsid sleep 600 </dev/null >/dev/null 2>&1 &\n`
  await vm.user('jj config unset --user user.name; jj config unset --user user.email')
  await world.dotfiles.commit(
    { dot_labrc: setThird, 'run_once_before_edit.sh': script },
    'From afar',
  )
  const { status } = outcome(scene, vm, 'synced', await editAndSync(vm, ':'))
  check('the same run captures the edit', shared, status.captured.join())
  check('the first run keeps no file back', 0, status.kept.length)
  check('status.json lists the applied file', true, status.applied.includes(shared))
  const trunk = await world.dotfiles.read('dot_labrc')
  check('the trunk has the edit', 'edited meanwhile', lineOf(trunk, 15))
  check('the trunk has the remote change', 'line three', lineOf(trunk, 3))
  // jj pushes no commit without an author
  const by = ['--git-dir', world.dotfiles.dir, 'log', '-1', '--format=%an <%ae>', world.branch]
  const { user } = vm.vm
  check(
    'without a name in jj the commit has the user as author',
    `${user} <${user}@${vm.host}>`,
    (await git(by, { allow: [128] })).trim(),
  )
  check('the file at home has the edit', 'edited meanwhile', await line(15))
  check('the file at home has the remote change', 'line three', await line(3))
  const again = await told(scene, vm, 'chezmoi-sync 2>&1', 'user')
  check('a process that a script left holds up no other run', /^(?![^]*locked:)/, again)
  const next = await syncs(scene, vm, 'up-to-date')
  check('the next run keeps no file back', '', next.kept.map((one) => one.file).join())
}

async function putAside(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const file = '.labmod'
  await vm.user(`echo mine >${file}; chmod 600 ${file}`)
  const script = '#!/bin/sh\ncat\necho from afar\n'
  await world.dotfiles.commit({ modify_dot_labmod: script }, 'From afar')
  const status = await syncs(scene, vm, 'synced')
  check('the sync modifies the file at home', 'mine\nfrom afar\n', await readHome(vm, file))
  const kept = status.kept.find((one) => one.file === file)
  check('status.json says that the former text is put aside', /put aside/, kept?.reason)
  const place = await vm.ask('stat -c "%a %U" /var/lib/chezmoi-sync/kept /var/lib/chezmoi-sync')
  const { user } = vm.vm
  check('only the user can read files put aside', `700 ${user}\n755 ${user}`, place)
  const ends = 'systemctl show --value -p TimeoutStartUSec chezmoi-pre-update.service'
  check('systemd limits how long a sync may run', /^(?!infinity)./, await vm.ask(ends))
  const text = 'mine\nfrom afar\nsince\n'
  await vm.user(`echo since >>${file}`)
  const back = async (): Promise<string> => {
    await told(scene, vm, `chezmoi-restore-kept ${file}`, 'user')
    return readHome(vm, file)
  }
  check('chezmoi-restore-kept puts the text back', 'mine\n', await back())
  check('the restored file keeps its mode', '600', await vm.askUser(`stat -c %a ${file}`))
  check('the replaced text can be restored, too', text, await back())
  await vm.user(`echo later >>${file}`)
  await syncs(scene, vm, 'up-to-date')
  check(
    'the sync modifies the file again after a later edit',
    `${text}later\nfrom afar\n`,
    await readHome(vm, file),
  )
  check('the later text can be restored', `${text}later\n`, await back())
}

async function takenBack(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const text = 'thought better of it'
  // git still has the text, for as long as it keeps what no commit refers to
  await vm.user(`${setLine(shared, 7, text)}; chezmoi re-add ${shared}
    cd ${fromHome(world.paths.dotfiles)} && git add --all && git reset --quiet --hard`)
  await world.dotfiles.commit({ dot_labrc: setThird }, 'From afar')
  const status = await syncs(scene, vm, 'synced')
  check('the edit is still at home', text, lineOf(await readHome(vm, shared), 7))
  const kept = status.kept.find(({ file }) => file === shared)
  check('status.json says why the file is kept', 'its text is in no commit', kept?.reason)
}

async function otherKinds(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const first = ['dot_labgiven/x', 'labshared/x', 'exact_labexact/x', 'lablinks/x', 'labgone']
  const all = <T>(text: T) => Object.fromEntries(first.map((path) => [path, text]))
  // what a sync has written from a template is no edit of this host
  const tool = (text: string) => ({
    'private_readonly_executable_dot_labtool.tmpl': `${text} {{ .chezmoi.username }}\n`,
  })
  // neither private nor for everyone, as chezmoi itself makes none
  const closed = { dot_labclosed: 'x\n', executable_dot_labrun: '#!/bin/sh\n' }
  await world.dotfiles.commit({ ...all('x\n'), ...tool('one'), ...closed }, 'From afar')
  await syncs(scene, vm, 'synced')
  const mine = ['labshared/mine', 'labexact/notes/mine', 'labswept/in/mine', 'labfile']
  await vm.user(`mkdir -p labexact/notes labswept/in labplace; chmod 660 .labclosed; chmod 750 .labrun
    ln -s labplace lablink; ln -s nowhere lablinks/mine
    for each in ${mine.join(' ')}; do echo mine >$each; done`)

  const links = { symlink_dot_labgiven: '.labrc\n', symlink_labshared: '.labrc\n' }
  const directories = {
    'labfile/x': 'x\n',
    'labfile.of-all': 'x\n',
    'lablink/x': 'x\n',
    'exact_labexact/y': 'y\n',
  }
  // a pointer of Git LFS: git would fetch its file, jj does not
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 9\n`
  const unfetched = { '.gitattributes': 'dot_labbig filter=lfs\n', dot_labbig: pointer }
  const removed = { '.chezmoiremove': 'labgone\nlablinks\nlabswept\n' }
  const others = { ...links, ...directories, ...removed, ...unfetched, ...tool('two') }
  const changes = { ...all(null), ...others }
  await world.dotfiles.commit(changes, 'Other kinds')
  for (const expected of ['synced', 'up-to-date']) {
    const status = await syncs(scene, vm, expected)
    const ask = `cat ${mine.join(' ')}; readlink lablink lablinks/mine`
    const texts = (await vm.user(ask, { allow: 'any' })).stdout
    check('the user’s files stay', `${'mine\n'.repeat(mine.length)}labplace\nnowhere\n`, texts)
    const kept = status.kept.map(({ file }) => file).toSorted()
    check(
      'status.json lists the files kept back',
      '.labbig .labclosed .labrun labexact/notes labfile lablink lablinks labshared labswept',
      kept.join(' '),
    )
  }
  const rest =
    'readlink .labgiven; ls labexact; ls -d labgone .labbig labfile.of-all; ls labplace; cat .labtool; stat -c %a .labtool .labclosed .labrun'
  const { stdout } = await vm.user(rest, { allow: 'any' })
  const tools = `two ${vm.vm.user}\n500\n660\n750\n`
  check(
    'all other files are as in the source',
    `.labrc\nnotes\ny\nlabfile.of-all\n${tools}`,
    stdout,
  )
}

async function ownWays(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const inTrunk = async (...command: string[]): Promise<string> =>
    (await git(['--git-dir', world.dotfiles.dir, ...command], { allow: [128] })).trim()
  const newest = () => inTrunk('log', '-1', '--format=%an <%ae> %s', world.branch)
  // settings by which chezmoi prints more, asks before it writes, and commits what it adds
  const settings =
    'color = true\\nverbose = true\\ninteractive = true\\n[git]\\nautoCommit = true\\n'
  const hook = '[hooks.read-source-state.pre]\\ncommand = "echo"\\nargs = ["a hook"]\\n'
  await vm.user(`jj config set --user user.name 'Own Name'; jj config set --user user.email own@example.org
    mkdir -p .config/chezmoi; printf '${settings}${hook}' >>.config/chezmoi/chezmoi.toml
    cd ${fromHome(world.paths.dotfiles)} && jj new @- && head -c 3000000 /dev/urandom >dot_labbig
    echo 'of {{ .chezmoi.username }}' >dot_labtmpl.tmpl && jj describe -m 'By hand'
    git remote set-url origin git://git.lab/elsewhere.git`)
  await syncs(scene, vm, 'synced')
  check('the change is in the trunk', 'Own Name <own@example.org> By hand', await newest())
  const origin = `git -C ${fromHome(world.paths.dotfiles)} remote get-url origin`
  const url = await vm.askUser(origin)
  check('origin is the configured remote', 'git://git.lab/dotfiles.git', url)
  const size = await inTrunk('cat-file', '-s', `${world.branch}:dot_labbig`)
  check('the big file is in the trunk', '3000000', size)
  // a bookmark of the user's, moved since it was pushed
  const mark = 'lab-own'
  await inTrunk('branch', mark, `${world.branch}~1`)
  const marked = await inTrunk('rev-parse', mark)
  await vm.user(
    `cd ${fromHome(world.paths.dotfiles)} && jj git fetch && jj bookmark track ${mark}@origin && jj bookmark set ${mark} -r @- --allow-backwards`,
  )

  // jj sets the author when a commit is begun, which the agent does as it finishes the one before
  await vm.user(setLine(shared, 3, 'by its own name'))
  await syncs(scene, vm, 'synced')
  await vm.user(`echo edited >>.labtmpl; ${setLine(shared, 15, 'by its own name')}`)
  const status = await syncs(scene, vm, 'synced')
  const name = `Own Name <own@example.org> Dotfiles of ${vm.host}: dot_labrc`
  check('the user is the author of the agent’s commit', name, await newest())
  check('no other bookmark is pushed', marked, await inTrunk('rev-parse', mark))
  check('the edited template stays', `of ${vm.vm.user}\nedited\n`, await readHome(vm, '.labtmpl'))
  const kept = status.kept.map((one) => `${one.file}: ${one.reason}`).join()
  check('status.json names the edited template', /^\.labtmpl: a template/, kept)
  const none = (await world.dotfiles.head(`conflict/${vm.host}`)) ?? 'none'
  check('the edited template publishes no conflict', 'none', none)

  const inSource = (text: string) => `${setLine('dot_labrc', 7, text)} && jj commit -m 'To ${text}'`
  await vm.user(
    `cd ${fromHome(world.paths.dotfiles)} && ${inSource('there')} && ${inSource('line 7')}`,
  )
  const last = 'from afar\n'
  await world.dotfiles.commit(
    { dot_labrc: replacing(7, 'line seven'), dot_labz: last },
    'From afar',
  )
  await syncs(scene, vm, 'synced')
  const line = lineOf(await readHome(vm, shared), 7)
  check('an edit that a second commit undoes is no conflict', 'line seven', line)
  const after = await vm.user('cat .labz', { allow: 'any' })
  check('files after the edited template are applied', last, after.stdout)
  check(
    'both commits are in the trunk',
    /^To line 7\nTo there$/m,
    await inTrunk('log', '--format=%s', world.branch),
  )
  await vm.user('chezmoi chattr private .labz && echo more >>.labz')
  await syncs(scene, vm, 'synced')
  const both = await inTrunk('show', `${world.branch}:private_dot_labz`)
  check('an edit is in the trunk beside a mode set in the source', 'from afar\nmore', both)
  const mode = await vm.askUser('stat -c %a .labz')
  check('the mode that was set in the source is applied', '600', mode)
}

async function unfinished(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const inSource = (script: string): Promise<string> =>
    vm.askUser(`cd ${fromHome(world.paths.dotfiles)} && ${script}`)
  const [trunk = 'none', text] = [await world.dotfiles.head(), await readHome(vm, shared)]
  await vm.user('git config --global color.ui always; git config --global color.grep.filename red')
  await inSource(
    String.raw`printf '<<<<<<< one\nx\n=======\ny\n>>>>>>> two\n' | tee dot_labgröße >>dot_labrc`,
  )
  const left = 'conflict: Conflict markers are left in dot_labgröße, dot_labrc'
  const status = await syncs(scene, vm, left)
  const named = status.conflicts.flatMap(({ files }) => files)
  const both = 'dot_labgröße, dot_labrc'
  check('the status names the files without colour codes', both, named.join(', '))
  check('markers do not reach the trunk', trunk, await world.dotfiles.head())
  check('markers do not reach the file at home', text, await readHome(vm, shared))
  await inSource("rm dot_labgröße; sed -Ei '/^(<|>|=){7}/d' dot_labrc")
  await syncs(scene, vm, 'synced')
  check(
    'the text between the markers reaches the home',
    `${text}x\ny\n`,
    await readHome(vm, shared),
  )

  const as = 'git -c user.name=o -c user.email=o@o'
  const state = 'git status --porcelain=v2 --branch; cat dot_labrc .git/MERGE_HEAD'
  const before = await inSource(`at=$(git rev-parse HEAD); git checkout -q -b side
    echo s >dot_labrc; ${as} commit -qam s; git checkout -q --detach "$at"
    echo t >dot_labrc; ${as} commit -qam t; ${as} merge side >/dev/null 2>&1 || ${state}`)
  scene.must('git waits in an unfinished merge', /^u UU/m, before)
  await syncs(scene, vm, 'conflict: git is in the middle')
  check('the unfinished merge is unchanged', before, await inSource(state))
  // git marks an unfinished rebase by a directory
  const stopped = 'git status --porcelain=v2 --branch; cat dot_labrc .git/rebase-merge/onto'
  const amid = await inSource(
    `git merge --abort; ${as} rebase side >/dev/null 2>&1 || { ${stopped}; }`,
  )
  scene.must('git waits in an unfinished rebase', /^u UU/m, amid)
  await syncs(scene, vm, 'conflict: git is in the middle')
  check('the unfinished rebase is unchanged', amid, await inSource(stopped))
  const others = {
    'git am': `git format-patch -1 --stdout side >../labpatch; ${as} am ../labpatch`,
    'git cherry-pick': `${as} cherry-pick side`,
    'git revert': `${as} revert HEAD~1`,
  }
  await inSource('git rebase --abort')
  for (const [command, begins] of Object.entries(others)) {
    const ends = `${command.replace('git', as)} --abort`
    const waits = await inSource(`! { ${begins}; } >/dev/null 2>&1; git status`)
    scene.must(`git waits in an unfinished ${command}`, new RegExp(`${command} --abort`), waits)
    await syncs(scene, vm, 'conflict: git is in the middle')
    check(`the unfinished ${command} is unchanged`, waits, await inSource('git status'))
    await inSource(ends)
  }
  await inSource('rm ../labpatch; git checkout -q --detach HEAD~1; git branch -qD side')
  await syncs(scene, vm, 'up-to-date')

  // a branch of the user's that the remote has as well
  const at = (await world.dotfiles.head()) ?? 'no trunk'
  await inSource(`git checkout -q -b lab-own; git push -q -u origin lab-own
    echo own >>dot_labrc; ${as} commit -qam Own`)
  await syncs(scene, vm, 'failed: \\S+ is on the branch')
  check('a commit on another branch does not reach the trunk', at, await world.dotfiles.head())
  await inSource('git checkout -q --detach HEAD~1; git branch -qD lab-own')
  await syncs(scene, vm, 'up-to-date')
}

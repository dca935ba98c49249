/** User data in no commit that the dotfile agent's apply would remove. */
import { expect, test } from 'vitest'
import { type Host, lines, makeDotfiles, makeHost, type Synced } from './dotfiles.ts'
import { type ScratchRoot, useRoot } from './root.ts'

let root: ScratchRoot
await useRoot((made) => (root = made))

/** Runs a script in a host's source, and synchronizes the host. */
async function publish(host: Host, script: string): Promise<Synced> {
  await host.sh(`cd .local/share/chezmoi; ${script}`)
  const ran = await host.sync()
  expect(ran.outcome, ran.output).toBe('synced')
  return ran
}
const kept = (ran: Synced): Record<string, string> =>
  Object.fromEntries(ran.kept.map(({ file, reason }) => [file, reason]))

test('In an exact directory a host keeps its own entries of any type, and all else is applied', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await publish(
    sorrow,
    'mkdir -p exact_dot_app/exact_in; echo x | tee exact_dot_app/x exact_dot_app/exact_in/x',
  )
  await torment.sync()
  await torment.sh(`mkdir -p .app/notes/deep; echo todo >.app/notes/deep/todo; echo own >.app/in/own
    ln -s nowhere .app/link; mkfifo .app/pipe; mkdir .app/closed; chmod 000 .app/closed
    : >'.app/line
end'`)
  await publish(
    sorrow,
    'echo y >exact_dot_app/y; rm exact_dot_app/exact_in/x; touch exact_dot_app/exact_in/.keep',
  )
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', applied: ['.app/in/x', '.app/y'] })
  expect(Object.keys(kept(ran)).toSorted()).toEqual([
    '.app/closed',
    '.app/in/own',
    '.app/line\nend',
    '.app/link',
    '.app/notes',
    '.app/pipe',
  ])
  expect(
    await torment.sh(`chmod 700 .app/closed; cat .app/notes/deep/todo .app/in/own; readlink .app/link
      stat -c %F .app/pipe; ls .app | wc -l; ls .app/in`),
  ).toBe('todo\nown\nnowhere\nfifo\n9\nown')
})

test('A directory of the host stays where the trunk has a file, a link, or nothing', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  const own = ['.file', '.link', '.gone', '.swept']
  await torment.sh(
    own.map((name) => `mkdir -p ${name}/in; echo ${name} >${name}/in/own`).join('\n'),
  )
  await publish(
    sorrow,
    'echo x >dot_file; echo .a >symlink_dot_link; : >remove_dot_gone; echo .swept >.chezmoiremove; echo more >>dot_a',
  )
  for (const applied of [['.a'], []]) {
    const ran = await torment.sync()
    expect(ran).toMatchObject({ outcome: applied.length ? 'synced' : 'up-to-date', applied })
    for (const name of own) expect(kept(ran)[name]).toContain('a directory of this host')
  }
  expect(await torment.sh(own.map((name) => `cat ${name}/in/own`).join('\n'))).toBe(own.join('\n'))
})

test('An empty directory that chezmoi has not made stays, too', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n', '.b': 'b\n' })
  await torment.sh('rm .b; mkdir .b .own')
  await publish(sorrow, 'echo x >dot_own; echo more | tee -a dot_a dot_b')
  for (const _ of [1, 2]) {
    const ran = await torment.sync()
    expect(kept(ran)).toEqual({
      '.b': 'a directory of this host',
      '.own': 'a directory of this host',
    })
  }
  expect(await torment.sh('rmdir .b .own; cat .a')).toBe('a\nmore')
})

test('A file or a link of the host stays where the trunk has a directory, and nothing is removed through the link', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('echo own >.dir; mkdir mine; ln -s mine .way; ln -s mine .empty')
  await publish(
    sorrow,
    `mkdir -p dot_dir/sub dot_way remove_dot_empty; echo x | tee dot_dir/x dot_dir/sub/x dot_way/x
    echo more >>dot_a; touch remove_dot_empty/.keep
    for when in before_1 2 after_3; do printf '#!/bin/sh\\necho %s >>~/ran\\n' $when >run_once_$when.sh; done`,
  )
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', applied: ['.a', '1.sh', '2.sh', '3.sh'] })
  expect(Object.keys(kept(ran)).toSorted()).toEqual(['.dir', '.empty', '.way'])
  expect(await torment.sh('cat .dir .a ran; readlink .way .empty; ls mine')).toBe(
    'own\na\nmore\nbefore_1\n2\nafter_3\nmine\nmine',
  )
})

test('A new file in a directory that was deleted here is not applied, and this is no failure', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await publish(sorrow, 'mkdir dot_app; echo x >dot_app/x')
  await torment.sync()
  await torment.sh('rm -r .app')
  // a new file `x` is no `.app/x`
  await publish(sorrow, 'echo y >dot_app/y; mkdir dot_app/in; echo z >dot_app/in/z; echo x >x')
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', applied: ['x'] })
  expect(kept(ran)).toEqual({ '.app': 'deleted here', '.app/x': 'deleted here' })
  expect(await torment.sync()).toMatchObject({ outcome: 'up-to-date' })
  await torment.sh('[ ! -e .app ]; chezmoi apply --force .app')
  expect(await torment.sync()).toMatchObject({ outcome: 'up-to-date', kept: [] })
  expect(await torment.sh('cat .app/x .app/y .app/in/z')).toBe('x\ny\nz')
})

test('A file where the source removes something below it, which makes chezmoi fail completely, is put aside and can be restored', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('echo own >.app; chmod 600 .app')
  await publish(
    sorrow,
    "mkdir dot_app; echo x >dot_app/x; echo '.app/old/*' >.chezmoiremove; echo more >>dot_a",
  )
  const small = await torment.sync({ CHEZMOI_KEEP_LIMIT: '3' })
  expect(small).toMatchObject({ outcome: 'failed', reason: expect.stringContaining('.app') })
  expect(kept(small)['.app']).toContain('kept may hold only 3 bytes')
  expect(await torment.sh('cat .app')).toBe('own')
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', applied: ['.a', '.app', '.app/x'] })
  expect(kept(ran)['.app']).toContain('chezmoi-restore-kept')
  const restore = 'bash -euo pipefail /tmp/chezmoi-restore-kept.sh'
  expect(await torment.sh(restore)).toMatch(/Z {2}\.app$/)
  expect(await torment.sh(`${restore} .app; cat .app; stat -c %a .app; ${restore}`)).toMatch(
    /^Put back: \.app .*\nown\n600\n[^]*\.app\/x$/,
  )
})

test('A file that was put aside is never overwritten, even in the same second or after the clock was set back', async () => {
  const { torment } = await makeDotfiles(root, { '.a': 'a\n' })
  const restore = 'bash -euo pipefail /tmp/chezmoi-restore-kept.sh'
  const all = 'grep -rh . .local/state/chezmoi-sync/kept | sort | paste -sd " "'
  // a file, a directory and two files in turn, each replacing the one before
  await torment.sh(`kept=.local/state/chezmoi-sync/kept/2099-01-01T00:00:00Z; mkdir -p $kept; echo 1 >$kept/.app
    mkdir .app; echo 2 >.app/x; ${restore} .app
    echo 3 >.app; ${restore} .app/x
    rm -r .app; echo 4 >.app; ${restore} .app; echo 5 >.app; echo own >.app.restored; ${restore} .app`)
  expect(await torment.sh(all)).toBe('1 2 3 4 5')
  // the newest, by the order in which they were put aside
  expect(await torment.sh('cat .app .app.restored')).toBe('4\nown')
  // the older one first, so that the newer one ends up at its path
  await torment.sh(`${restore} --all`)
  expect(await torment.sh(`cat .app; ${all}`)).toBe('5\n1 2 2 3 4 4 5')
})

test('Two texts of one file that a script changes in one run are both put aside', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('echo first >.mod')
  await publish(
    sorrow,
    `printf '#!/bin/sh\\necho managed\\n' >modify_dot_mod
    printf '#!/bin/sh\\necho second >~/.mod\\n' >run_once_before_late.sh`,
  )
  // a text that is written during an apply causes another round of the same run
  await torment.sync()
  await torment.sync()
  expect(await torment.sh('cat .mod; grep -rh . .local/state/chezmoi-sync/kept | sort')).toBe(
    'managed\nfirst\nsecond',
  )
})

test('What only its group may read is not opened to everyone, and edits of it are shared', async () => {
  const { sorrow, torment, both } = await makeDotfiles(root, {
    '.a': 'a\n',
    '.b': 'b\n',
    '.c': 'c\n',
  })
  await publish(sorrow, 'mkdir dot_d; echo d >dot_d/x')
  await torment.sync()
  // as by an apply where the umask is 027
  await torment.sh('chmod 640 .a; echo edit >>.a; rm -r .d; umask 027; chezmoi apply --force .d')
  const modes = (): Promise<string> => torment.sh('stat -c %a .a .b .d .d/x | paste -sd " "')
  const closed = {
    '.a': expect.stringMatching(/^only its group may read it here, .*`chmod`/),
    '.d': expect.stringContaining('umask'),
    '.d/x': expect.stringContaining('umask'),
  }
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  expect([kept(ran), await modes()]).toEqual([closed, '640 644 750 640'])
  // a mode that chezmoi itself gives is still applied, and the next edit is captured
  await sorrow.sync()
  await sorrow.sh('chmod 600 .b; chmod +x .c')
  await sorrow.sync()
  await torment.sh('echo more >>.a')
  const next = await torment.sync()
  expect(next).toMatchObject({ captured: ['.a'], applied: ['.b', '.c'] })
  expect([kept(next), await modes()]).toEqual([closed, '640 600 750 640'])
  await sorrow.sync()
  expect(await both('.a')).toEqual(Array(2).fill('a\nedit\nmore'))
  await torment.sh('chmod 600 .a; chmod 700 .d; chmod 644 .d/x')
  expect((await torment.sync()).kept).toMatchObject([{ file: '.d' }])
})

test('A text that is written between the copy of a file and its change is put aside as well', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(`echo first >.mod; mkdir slow; cat >slow/sync <<'END'
#!/bin/sh
case "$*" in *--file-system*/kept) grep -q second ~/.mod || echo second >~/.mod ;; esac
exec /usr/bin/sync "$@"
END
    chmod +x slow/sync`)
  await publish(sorrow, "printf '#!/bin/sh\\necho managed\\n' >modify_dot_mod")
  for (const _ of [1, 2])
    await torment.sync({ PATH: `${torment.home}/slow:/usr/local/bin:/usr/bin` })
  expect(await torment.sh('cat .mod; grep -rh . .local/state/chezmoi-sync/kept | sort')).toBe(
    'managed\nfirst\nsecond',
  )
})

test('A second round of a run still lists what the first one put aside', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': '1\n2\n3\n4\n5\n6\n' })
  await torment.sh('echo own >.mod')
  // an edit that is made before its file is written causes another round
  await publish(
    sorrow,
    `printf '#!/bin/sh\\necho managed\\n' >modify_dot_mod; sed -i s/6/six/ dot_a
    printf '#!/bin/sh\\nsed -i s/1/one/ ~/.a\\n' >run_once_before_edit.sh`,
  )
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', captured: ['.a'] })
  const [mod] = ran.kept
  expect(await torment.sh(`cat .mod ${mod?.copy} .a`)).toBe('managed\nown\none\n2\n3\n4\n5\nsix')
})

test('An edit in a directory with `external_`, from which chezmoi takes none, is named and not reported as captured', async () => {
  const { torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await publish(
    torment,
    'mkdir -p external_lib/dot_in; echo x | tee external_lib/.x external_lib/dot_in/x',
  )
  await torment.sh('echo edit >>.a; echo edit | tee -a lib/.x lib/dot_in/x')
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', captured: ['.a'], applied: [] })
  expect(kept(ran)).toEqual({
    'lib/.x': expect.stringMatching(/takes no edit: copy it to \/.*\/external_lib\/\.x, or/),
    'lib/dot_in/x': expect.stringContaining('takes no edit'),
  })
  await torment.sh(
    'cp lib/.x .local/share/chezmoi/external_lib; chezmoi apply --force lib/dot_in/x',
  )
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', kept: [] })
  expect(await atRemote('git show main:external_lib/.x main:external_lib/dot_in/x')).toBe(
    'x\nedit\nx',
  )
})

test('A directory that becomes a link is removed only if the host has no files of its own in it', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await publish(sorrow, 'mkdir -p dot_one/sub dot_other; echo x | tee dot_one/sub/x dot_other/x')
  await torment.sync()
  await torment.sh('echo own >.other/own')
  await publish(sorrow, 'rm -r dot_one dot_other; echo .a | tee symlink_dot_one symlink_dot_other')
  const ran = await torment.sync()
  expect(kept(ran)).toEqual({
    '.other': 'a directory of this host, with content in no commit: own',
  })
  expect(await torment.sh('readlink .one; cat .other/x .other/own')).toBe('.a\nx\nown')
})

test('A file that appears in a directory while that is being replaced stays', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await publish(sorrow, 'mkdir -p dot_one; echo x >dot_one/x')
  await torment.sync()
  await publish(
    sorrow,
    `rm -r dot_one; echo .a >symlink_dot_one
    printf '#!/bin/sh\\nmkdir -p ~/.one; echo late >~/.one/late\\n' >run_once_before_late.sh`,
  )
  await torment.sync()
  expect(await torment.sh('cat .one/late')).toBe('late')
})

test('A file that appears in a directory while its files are being removed stays', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await publish(sorrow, 'mkdir -p dot_one; echo x >dot_one/x')
  await torment.sync()
  await publish(sorrow, 'rm -r dot_one; echo .a >symlink_dot_one')
  await torment.sh(`mkdir slow; cat >slow/rm <<'END'
#!/bin/sh
case "$*" in */.one/x) echo late >~/.one/late ;; esac
exec /usr/bin/rm "$@"
END
    chmod +x slow/rm`)
  const ran = await torment.sync({ PATH: `${torment.home}/slow:/usr/local/bin:/usr/bin` })
  expect(kept(ran)['.one']).toContain('a directory of this host')
  expect(await torment.sh('cat .one/late')).toBe('late')
})

test('A text counts as committed only if the commit has exactly that text, however git would convert its line endings', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh("git config --global core.autocrlf true; printf 'a\\r\\n' >.mod")
  await publish(sorrow, `printf '#!/bin/sh\\necho managed\\n' >modify_dot_mod`)
  const { kept: all } = await torment.sync()
  expect(all).toMatchObject([{ file: '.mod', copy: expect.stringContaining('/kept/') }])
  expect(await torment.sh(`cat .mod; od -An -c ${all[0]!.copy}`)).toMatch(
    /^managed\n +a +\\r +\\n$/,
  )
})

test('The content of a directory is restored by any path, even if a file has replaced the directory', async () => {
  const { torment } = await makeDotfiles(root, { '.a': 'a\n' })
  const restore = 'bash -euo pipefail /tmp/chezmoi-restore-kept.sh'
  const lay = `cd; rm -rf app; echo file >app; mkdir -p sub`
  await torment.sh(`kept=.local/state/chezmoi-sync/kept/2026-01-01T00:00:00Z/app
    mkdir -p $kept; echo x >$kept/x`)
  await torment.sh('ln -s torment ../link')
  for (const home of ['', 'export HOME=${HOME%/*}/link; '])
    for (const path of ['app/x', '"$HOME/app/x"', '../app/x'])
      expect(
        await torment.sh(`${home}${lay}; cd sub; ${restore} ${path} >/dev/null; cat ~/app/x`),
      ).toBe('x')
})

test('If the copy cannot be read, restoring leaves the present file in place', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('echo own >.mod')
  await publish(sorrow, `printf '#!/bin/sh\\necho managed\\n' >modify_dot_mod`)
  await torment.sync()
  const tried = await torment.sh(`chmod 000 .local/state/chezmoi-sync/kept/*/.mod
    bash -euo pipefail /tmp/chezmoi-restore-kept.sh .mod 2>&1 || echo failed; cat .mod`)
  expect(tried).toMatch(/failed\nmanaged$/)
})

test('A broken template, and a file that cannot be decrypted, are named, and do not block other files', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n', '.t': 't\n' })
  const remote = await atRemote('pwd')
  // by hand, as no host would push it
  await sorrow.sh(`git clone -q ${remote} hand; cd hand; git config user.name x; git config user.email x
    echo '{{ fail "no" }}' >dot_t.tmpl; git rm -q dot_t; echo sealed >encrypted_dot_key.age; echo more >>dot_a
    mkdir exact_dot_app; echo x >exact_dot_app/x; git add .; git commit -qm broken; git push -q origin HEAD:main`)
  await torment.sh(`mkdir -p .config/chezmoi .app/own; echo own >.app/own/own; echo new >.new
    printf 'encryption = "age"\\n[age]\\nidentity = "none"\\nrecipient = "none"\\n' >.config/chezmoi/chezmoi.toml
    chezmoi add .new`)
  const ran = await torment.sync()
  expect(ran.reason).toMatch(/Cannot apply .*\.key: /)
  expect(ran.reason).toMatch(/\.t: template: /)
  expect(Object.keys(kept(ran))).toEqual(expect.arrayContaining(['.app/own', '.key', '.t']))
  expect(await torment.sh('cat .a .t .app/own/own .app/x')).toBe('a\nmore\nt\nown\nx')
  expect(await atRemote('git show main:dot_new')).toBe('new')
  // later edits get through as well
  await torment.sh('echo again >>.a; echo \'{{ fail "here" }}\' >.local/share/chezmoi/dot_u.tmpl')
  const second = await torment.sync()
  expect(second).toMatchObject({ outcome: 'failed', code: 1, captured: ['.a'] })
  expect(second.reason).toContain('.u: template:')
  expect(await atRemote('git show main:dot_a')).toBe('a\nmore\nagain')
  // a template that is broken here is not published
  expect(await atRemote('git ls-tree --name-only main')).not.toContain('dot_u.tmpl')
  await torment.sh('echo fine >.local/share/chezmoi/dot_u.tmpl')
  await torment.sync()
  expect(await atRemote('git show main:dot_u.tmpl')).toBe('fine')
})

test('A configuration that chezmoi could not read is not applied, so that its repair arrives', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  const file = '.config/chezmoi/chezmoi.toml'
  await sorrow.sh(`cd .local/share/chezmoi; mkdir -p dot_config/chezmoi; echo more >>dot_a
    echo '= [' >dot_config/chezmoi/chezmoi.toml`)
  for (const host of [sorrow, torment]) {
    const ran = await host.sync()
    expect(ran).toMatchObject({ outcome: 'failed', applied: ['.a'] })
    expect(ran.reason).toMatch(/^Cannot apply \.config\/chezmoi\/chezmoi\.toml: chezmoi could not/)
  }
  await publish(sorrow, `echo 'data.x = 1' >dot_config/chezmoi/chezmoi.toml`)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: [file], kept: [] })
  // nor is a good configuration replaced by a broken one
  await sorrow.sh(`echo '= [' >>.local/share/chezmoi/dot_config/chezmoi/chezmoi.toml`)
  expect(await sorrow.sync()).toMatchObject({ outcome: 'failed', applied: [] })
  expect(await sorrow.sh(`cat ${file}`)).toBe('data.x = 1')
})

test('Nothing is applied from a source that chezmoi cannot read', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await sorrow.sh(`git clone -q ${await atRemote('pwd')} hand; cd hand; git config user.name x; git config user.email x
    echo '{{ fail "no" }}' >.chezmoiignore; mkdir exact_dot_app; touch exact_dot_app/.keep; echo more >>dot_a
    git add .; git commit -qm broken; git push -q origin HEAD:main`)
  await torment.sh('mkdir .app; echo own >.app/own')
  expect(await torment.sync()).toMatchObject({ outcome: 'failed', applied: [] })
  expect(await torment.sh('cat .app/own .a')).toBe('own\na')
})

test('Texts that came from the host do not count as chezmoi’s, and those that a script changes are put aside', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('echo mine | tee .made .mod .was .other')
  await publish(
    sorrow,
    `echo theirs | tee create_dot_made create_dot_other; for name in mod was; do
    printf '#!/bin/sh\\necho managed\\n' >modify_dot_$name; done`,
  )
  const ran = await torment.sync()
  expect(ran).toMatchObject({ outcome: 'synced', applied: ['.mod', '.was'] })
  const copy = ran.kept.find(({ file }) => file === '.mod')
  expect(await torment.sh(`cat .made .mod ${copy!.copy}`)).toBe('mine\nmanaged\nmine')
  await torment.sh('echo app >>.mod; echo app >>.was; chezmoi apply --force .made')
  await publish(
    sorrow,
    'mv create_dot_made dot_made; rm modify_dot_was create_dot_other; echo plain >dot_was; : >remove_dot_other',
  )
  await torment.sync()
  expect(await torment.sh('cat .made .mod .other; tail -n 1 .was')).toBe('mine\nmanaged\nmine\napp')
  const status = await torment.sh('bash -euo pipefail /tmp/chezmoi-status.sh')
  expect(status).toMatch(/^aside: {4}3 files/m)
  expect(status).toMatch(/^kept: {5}\.made \(/m)
  expect(
    await torment.sh('bash -euo pipefail /tmp/chezmoi-restore-kept.sh --all >/dev/null; cat .mod'),
  ).toBe('managed\napp')
})

test('A file that exceeds the limit for putting aside stays unchanged', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('truncate -s 10M .mod')
  await publish(sorrow, "printf '#!/bin/sh\\necho managed\\n' >modify_dot_mod; echo more >>dot_a")
  const ran = await torment.sync({ CHEZMOI_KEEP_LIMIT: '1000000' })
  expect(ran).toMatchObject({ outcome: 'synced', applied: ['.a'] })
  expect(kept(ran)['.mod']).toContain('kept may hold only 1000000 bytes')
  expect(await torment.sh('stat -c %s .mod')).toBe(String(10 * 1024 * 1024))
})

test('A file that was made by a script also stays unchanged beyond that limit', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('echo own >.mod')
  await publish(sorrow, "printf '#!/bin/sh\\ncat; echo one\\n' >modify_dot_mod")
  await torment.sync()
  await publish(sorrow, "printf '#!/bin/sh\\ncat; echo two\\n' >modify_dot_mod")
  const ran = await torment.sync({ CHEZMOI_KEEP_LIMIT: '1' })
  expect(kept(ran)['.mod']).toContain('cannot be put aside')
  expect(await torment.sh('cat .mod')).toBe('own\none')
})

test('A first clone changes none of the host’s own files', async () => {
  const { sorrow, torment, remote } = await makeDotfiles(root, { '.a': 'a\n', '.b': 'b\n' })
  await publish(
    sorrow,
    'mkdir -p exact_dot_app/sub; echo x | tee exact_dot_app/x exact_dot_app/sub/x',
  )
  const fresh = makeHost(root, 'fresh', `${torment.home}/../fresh`, remote)
  await torment.sh('mkdir ../fresh')
  await fresh.sh('mkdir -p .app .b; echo own | tee .a .app/own .app/sub .b/own')
  const ran = await fresh.sync()
  expect(ran).toMatchObject({ outcome: 'synced', applied: ['.app/x'] })
  expect(Object.keys(kept(ran)).toSorted()).toEqual(['.a', '.app/own', '.app/sub', '.b'])
  expect(await fresh.sh('cat .a .app/own .app/sub .b/own')).toBe('own\nown\nown\nown')
})

test('A dotfile that jj was told not to track is named, and no run reports success', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await sorrow.sh(
    "jj config set --user snapshot.auto-track 'none()'; echo new >.new; chezmoi add .new; mkdir .local/share/chezmoi/.junk; touch .local/share/chezmoi/.junk/x",
  )
  const ran = await sorrow.sync()
  expect(ran).toMatchObject({
    outcome: 'failed',
    reason: expect.stringContaining('jj does not track .new, so it stays on this host'),
    kept: [{ file: '.new', reason: 'in the source, but jj does not track it' }],
  })
  await sorrow.sh('cd .local/share/chezmoi; jj file track dot_new')
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', kept: [] })
  // ignored by this host alone
  await torment.sh(
    'git config --global core.excludesFile ~/ignored; echo "dot_lost" >ignored; echo x >.lost; chezmoi add .lost',
  )
  expect(await torment.sync()).toMatchObject({
    outcome: 'failed',
    reason: expect.stringContaining('.lost'),
    applied: ['.new'],
  })
  // an edit of it is in the source but in no commit; this is also reported if the agent is set not to commit
  await torment.sh('echo edit >>.lost; echo edit >>.a; echo y >.local/share/chezmoi/dot_y')
  expect(await torment.sync({ CHEZMOI_AUTO_COMMIT: 'false' })).toMatchObject({
    outcome: 'failed',
    reason: expect.stringMatching(/^jj does not track \.lost, /),
    captured: ['.a'],
    kept: [{ file: '.lost' }],
  })
  expect(await torment.sh('cat .local/share/chezmoi/dot_lost')).toBe('x\nedit')
})

test('A dotfile whose name is not UTF-8, which jj cannot track, is named, and no run reports success', async () => {
  const { sorrow, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await sorrow.sh("cd .local/share/chezmoi; echo odd >$'dot_\\377'; echo more >>dot_a")
  expect(await sorrow.sync()).toMatchObject({
    outcome: 'failed',
    reason: expect.stringMatching(
      /^jj does not track \.\ufffd \(its name is not UTF-8: rename it\), so it stays on this host$/,
    ),
  })
  expect(await atRemote('git show main:dot_a')).toBe('a\nmore')
})

test('A nested repository in the source, which neither jj nor git looks into, is named, and no run reports success', async () => {
  const { sorrow } = await makeDotfiles(root, { '.a': 'a\n' })
  await sorrow.sh(`cd .local/share/chezmoi; git init -q dot_own; echo own >dot_own/x; cd dot_own
    git add x; git -c user.name=o -c user.email=o@o commit -qm own`)
  expect(await sorrow.sync()).toMatchObject({
    outcome: 'failed',
    reason: expect.stringMatching(
      /jj does not track \.own \(a repository of its own: .* so it stays/,
    ),
    kept: [
      {
        file: '.own',
        reason: 'a repository of its own in the source, which jj does not look into',
      },
    ],
  })
})

test('If the trunk adds a file that is here and in no commit, neither replaces the other', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(`git config --global core.excludesFile ~/ignored; printf '%s\n' dot_x dot_y '*.own' >ignored
    cd .local/share/chezmoi; echo torment >dot_x; echo same >dot_y; mkdir dot_z; echo torment >dot_z/z.own
    git init -q dot_own; echo torment >dot_own/x`)
  await publish(
    sorrow,
    'echo sorrow | tee dot_x dot_z >/dev/null; echo same >dot_y; mkdir dot_own; echo sorrow >dot_own/x',
  )
  const trunk = await atRemote('git rev-parse main')
  for (const _ of [1, 2]) {
    const { outcome, reason } = await torment.sync()
    expect(outcome).toBe('failed')
    expect(reason).toMatch(
      /^Cannot take the trunk: dot_own\/, dot_x, dot_z\/z\.own here .* no commit/,
    )
  }
  expect(await atRemote('git rev-parse main')).toBe(trunk)
  expect(await torment.sh('cd .local/share/chezmoi; cat dot_x dot_own/x dot_z/z.own')).toBe(
    lines('torment', 'torment', 'torment').trimEnd(),
  )
  await torment.sh('cd .local/share/chezmoi; mv dot_x dot_own dot_z ~')
  // a file with the same text does not block, and is tracked from then on
  await torment.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'up-to-date', kept: [] })
  expect(await torment.sh('cd .local/share/chezmoi; cat dot_x dot_y dot_own/x dot_z')).toBe(
    lines('sorrow', 'same', 'sorrow', 'sorrow').trimEnd(),
  )
})

test('A directory of the source that becomes a nested repository does not count as removed', async () => {
  const { sorrow, torment, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await publish(sorrow, 'mkdir dot_p; echo p >dot_p/x')
  await torment.sync()
  const fails = async (reason: RegExp, env = {}): Promise<void> => {
    const ran = await sorrow.sync(env)
    expect(ran).toMatchObject({ outcome: 'failed', reason: expect.stringMatching(reason) })
    expect(kept(ran)['.p']).toMatch(/^has a repository of its own/)
  }
  await sorrow.sh(
    'echo edit >>.a; git init -q .local/share/chezmoi/dot_p; mkdir .p.d; echo d >.p.d/x; chezmoi add .p.d',
  )
  await sorrow.sh('echo edit >>.p/x; echo edit >>.p.d/x')
  const first = await sorrow.sync()
  expect(first.captured).toEqual(['.a', '.p.d/x'])
  await sorrow.sh('echo p | tee .local/share/chezmoi/dot_p/x >.p/x')
  for (const _ of [1, 2]) await fails(/^jj takes the dotfiles in dot_p for removed, /)
  expect(await atRemote('git show main:dot_p/x main:dot_a')).toBe('p\na\nedit')
  // it blocks neither remote changes nor a run without commits
  for (const [line, env] of [
    ['one', {}],
    ['two', { CHEZMOI_AUTO_COMMIT: 'false' }],
  ] as const) {
    await torment.sync()
    await torment.sh(`echo ${line} >>.a`)
    await torment.sync()
    await fails(/^jj takes the dotfiles in dot_p for removed, /, env)
    expect(await sorrow.sh('tail -n 1 .a')).toBe(line)
  }
  await sorrow.sh('cd .local/share/chezmoi; jj describe -m "By hand"')
  await fails(/^Cannot commit: dot_p has a repository of its own/)
  await sorrow.sh('cd .local/share/chezmoi; jj describe -m ""; echo here >>dot_p/x')
  expect(await torment.sh('cat .p/x')).toBe('p')
  await torment.sh('sed -i 1ithere .p/x')
  await torment.sync()
  for (const env of [{}, { CHEZMOI_AUTO_COMMIT: 'false' }])
    await fails(/^Cannot take the trunk: it changes dot_p, /, env)
  await sorrow.sh('rm -rf .local/share/chezmoi/dot_p/.git')
  expect(await sorrow.sync()).toMatchObject({ outcome: 'synced', kept: [] })
  expect(await atRemote('git show main:dot_p/x')).toBe('there\np\nhere')
  expect(await sorrow.sh('cat .p/x .a')).toBe(
    lines('there', 'p', 'here', 'a', 'edit', 'one', 'two').trimEnd(),
  )
})

test('A file name with a newline works like any other', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n', '.line\nend': 'x\n' })
  await sorrow.sh("echo edit >>'.line\nend'; echo edit >>.a")
  const ran = await sorrow.sync()
  expect(ran.outcome, ran.output).toBe('synced')
  expect(ran.captured.toSorted()).toEqual(['.a', '.line\nend'])
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: ['.a', '.line\nend'] })
  expect(await torment.sh("cat '.line\nend'")).toBe('x\nedit')
})

test('A conflict is named after its file, even if a directory has replaced the file', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.cfg': 'x\n' })
  await sorrow.sh(
    'rm -r .cfg .local/share/chezmoi/dot_cfg; mkdir .cfg; echo y >.cfg/y; chezmoi add .cfg',
  )
  await sorrow.sync()
  await torment.sh('echo edit >>.cfg')
  expect(await torment.sync()).toMatchObject({
    outcome: 'conflict',
    conflicts: [{ host: 'torment', files: ['dot_cfg'] }],
  })
  expect(await torment.conflicts()).toMatch(/^conflict: dot_cfg$/m)
  expect(await torment.sh('cat .cfg')).toBe('x\nedit')
})

test('A template that is broken here blocks no other file, whatever characters its name has', async () => {
  const { sorrow, atRemote } = await makeDotfiles(root, { '.a': 'a\n' })
  await sorrow.sh(
    `cd .local/share/chezmoi; echo '{{ fail "no" }}' >$'dot_a\\tb"c\\\\.tmpl'; echo more >>dot_a`,
  )
  expect(await sorrow.sync()).toMatchObject({
    outcome: 'failed',
    reason: expect.stringContaining(': template: '),
  })
  expect(await atRemote('git show main:dot_a; git ls-tree -r --name-only main')).toBe(
    'a\nmore\ndot_a',
  )
})

test('With a chezmoi that is too old nothing is applied, and the reason says so', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await publish(sorrow, 'echo more >>dot_a')
  // cobra's response to an unknown flag
  await torment.sh(`mkdir bin; cat >bin/chezmoi <<'END'
#!/bin/sh
case "$*" in
  *--less-interactive*) /usr/bin/chezmoi --no-such-flag 2>&1 | sed s/no-such-flag/less-interactive/ >&2; exit 1 ;;
esac
END
    echo 'exec /usr/bin/chezmoi "$@"' >>bin/chezmoi; chmod +x bin/chezmoi`)
  const ran = await torment.sync({ PATH: `${torment.home}/bin:/usr/bin` })
  expect(ran).toMatchObject({
    outcome: 'failed',
    reason: 'Cannot apply: this needs chezmoi 2.66 or newer',
    applied: [],
  })
  expect(await torment.sh('cat .a')).toBe('a')
})

test('For a conflict in an encrypted file there are commands instead of ciphertext', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  const key = `${sorrow.home}/../key`
  await sorrow.sh(`age-keygen -o ${key} 2>/dev/null`)
  for (const host of [sorrow, torment])
    await host.sh(`mkdir -p .config/chezmoi; printf 'encryption = "age"\\n[age]\\nidentity = "%s"\\nrecipient = "%s"\\n' \
      ${key} "$(age-keygen -y ${key})" >.config/chezmoi/chezmoi.toml`)
  await sorrow.sh('echo secret >.key; chezmoi add --encrypt .key')
  await sorrow.sync()
  await torment.sync()
  for (const host of [sorrow, torment]) await host.sh(`echo ${host.name} >>.key`)
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({
    outcome: 'conflict',
    conflicts: [{ files: ['encrypted_dot_key.age'] }],
  })
  const shown = await torment.conflicts()
  expect(shown).not.toMatch(/BEGIN AGE|age-encryption/)
  // run the commands that it shows
  const compare = /^ *diff <\(.*$/m.exec(shown)![0]
  const side = /take one side: +(git show .*?) {3}/.exec(shown)![1]!
  const begin = /cd (\S+) && (jj new .*), then/.exec(shown)!
  expect(await torment.sh(`cd ${begin[1]}; ${compare} || true`)).toMatch(/< torment\n---\n> sorrow/)
  await torment.sh(`cd ${begin[1]}; ${begin[2]} 2>&1; ${side}`)
  expect((await torment.sync()).outcome).toBe('synced')
  await sorrow.sync()
  expect(await sorrow.sh('cat .key')).toBe('secret\ntorment')
  // an edit at home alone is in no commit, and is not published
  await sorrow.sh('echo of sorrow >.key')
  await sorrow.sync()
  await torment.sh(`echo of torment >.key
    cd .local/share/chezmoi; jj git fetch 2>&1; jj new main@origin 2>&1`)
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  const settle = /^conflict: .key$[^]* or (chezmoi re-add \S+) for/m.exec(
    await torment.conflicts(),
  )!
  await torment.sh(settle[1]!)
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', conflicts: [] })
  await sorrow.sync()
  expect(await sorrow.sh('cat .key')).toBe('of torment')
  expect(await sorrow.conflicts()).toBe('No conflicts')
})

test('An encrypted template is still a template: an edit of its output is kept, and not reported as captured', async () => {
  const { torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(`age-keygen -o ../key 2>/dev/null; mkdir -p .config/chezmoi
    printf 'encryption = "age"\\n[age]\\nidentity = "%s"\\nrecipient = "%s"\\n' \
      "$(realpath ../key)" "$(age-keygen -y ../key)" >.config/chezmoi/chezmoi.toml
    cd .local/share/chezmoi; echo '{{ .chezmoi.username }}' | chezmoi encrypt >encrypted_dot_t.tmpl.age`)
  await torment.sync()
  await torment.sh('echo more >>.t')
  expect(await torment.sync()).toMatchObject({
    outcome: 'up-to-date',
    captured: [],
    kept: [{ file: '.t', reason: 'a template, edited here' }],
  })
  expect(await torment.sh('cat .t')).toBe('rain\nmore')
})

test('Encrypted files are recognized by their attribute, whatever suffix the user has set', async () => {
  const { sorrow, torment, both } = await makeDotfiles(root, { '.a': 'a\n' })
  const key = `${sorrow.home}/../key`
  await sorrow.sh(`age-keygen -o ${key} 2>/dev/null`)
  for (const host of [sorrow, torment])
    await host.sh(`mkdir -p .config/chezmoi; printf 'encryption = "age"\\n[age]\\nsuffix = ".sealed"\\nidentity = "%s"\\nrecipient = "%s"\\n' \
      ${key} "$(age-keygen -y ${key})" >.config/chezmoi/chezmoi.toml`)
  await sorrow.sh(`echo secret >.key; chezmoi add --encrypt .key; cd .local/share/chezmoi
    echo '{{ .chezmoi.username }}' | chezmoi encrypt >encrypted_dot_t.tmpl.sealed`)
  await sorrow.sync()
  await torment.sync()
  await sorrow.sh('echo more >>.key; echo mine >>.t')
  expect(await sorrow.sync()).toMatchObject({
    outcome: 'synced',
    captured: ['.key'],
    kept: [{ file: '.t', reason: 'a template, edited here' }],
  })
  expect(await torment.sync()).toMatchObject({ outcome: 'synced', applied: ['.key'], kept: [] })
  expect(await both('.key')).toEqual(['secret\nmore', 'secret\nmore'])
})

test('A file that is too large for chezmoi’s memory is named, and blocks no other file', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh('truncate -s 10T .huge; echo own >.own')
  await sorrow.sh(
    'echo new >>.a; cd .local/share/chezmoi; for name in huge own z; do echo x >dot_$name; done',
  )
  await sorrow.sync()
  const { outcome, reason, applied } = await torment.sync()
  expect(outcome).toBe('failed')
  expect(reason).toMatch(/^Cannot apply \.huge: chezmoi crashed at it: .*out of memory$/)
  expect(applied).toEqual(['.a', '.z'])
  expect(await torment.sh('stat -c %s .huge; cat .own')).toBe(`${10 * 2 ** 40}\nown`)
})

test('Content that only git would fetch is named, and not written to the home', async () => {
  const { sorrow, torment, remote } = await makeDotfiles(root, { '.a': 'a\n' })
  await sorrow.sh(`git clone -q ${remote} other; cd other
    printf '*.big filter=lfs diff=lfs merge=lfs -text\n' >.gitattributes
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 9\n' 1 >dot_x.big
    echo b >dot_b; git add .; git -c protocol.file.allow=always submodule --quiet add ${remote} exact_dot_zsh
    git -c user.name=o -c user.email=o@o commit -qm more; git push -q origin HEAD:main`)
  await torment.sh('mkdir .zsh; echo own >.zsh/own')
  for (const _ of [1, 2]) {
    const ran = await torment.sync()
    expect(ran.outcome).toMatch(/synced|up-to-date/)
    const reasons = kept(ran)
    expect(reasons['.zsh']).toMatch('submodule')
    expect(reasons['.x.big']).toMatch('Git LFS')
  }
  expect(await torment.sh('ls -A .zsh; cat .b; ls .x.big 2>&1 || true')).toMatch(/^own\nb\nls: /)
})

test('A source that is a symbolic link works like any other', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  await torment.sh(
    'mkdir all; mv .local/share/chezmoi all/dots; ln -s ~/all/dots .local/share/chezmoi',
  )
  await sorrow.sh(`echo sorrow >.a; cd .local/share/chezmoi; echo '*.big filter=lfs' >.gitattributes
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 9\n' 1 >dot_x.big`)
  await sorrow.sync()
  await torment.sh(
    `printf '#!/bin/sh\n[ $1 != apply ] || echo torment >~/.a\n' >hook; chmod +x hook`,
  )
  const ran = await torment.sync({ CHEZMOI_PHASE_HOOK: `${torment.home}/hook` })
  expect(kept(ran)).toMatchObject({ '.x.big': expect.stringMatching('Git LFS') })
  expect(await torment.sh('ls .x.big 2>&1 || true')).toMatch(/^ls: /)
  expect(ran.conflicts).toEqual([{ host: 'torment', files: ['dot_a'] }])
  expect(await torment.conflicts()).toContain(`chezmoi merge ${torment.home}/.a, or`)
})

test('A conflict in a file whose name is a glob pattern shows only that file', async () => {
  const { sorrow, torment } = await makeDotfiles(root, {
    '*': 'a\n',
    '.b': 'b\n',
    ':(top)c': 'c\n',
  })
  for (const host of [sorrow, torment])
    await host.sh(`for file in '*' .b ':(top)c'; do echo ${host.name} >"$file"; done`)
  await sorrow.sync()
  expect(await torment.sync()).toMatchObject({ outcome: 'conflict' })
  const shown = (await torment.conflicts()).split('\n')
  for (const line of ['    +torment', '    +sorrow'])
    expect(shown.filter((each) => each === line)).toHaveLength(3)
})

test('A script runs each time, once it changed, or once for each text, as chezmoi itself would run it', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.a': 'a\n' })
  const names = [
    'run_always.sh',
    'run_once_o.sh',
    'run_onchange_c.sh',
    'sub/run_onchange_after_s.sh',
  ]
  names.push('.chezmoiscripts/run_onchange_d e.sh')
  const write = (text: string): string =>
    `mkdir -p sub .chezmoiscripts; ${names.map((name) => `printf '#!/bin/sh\\necho "${name} ${text}" >>~/ran\\n' >"${name}"`).join('; ')}`
  const ran = async (): Promise<string> => {
    await torment.sync()
    return torment.sh('LC_ALL=C sort ran; rm ran')
  }
  const all = (text: string): string =>
    names
      .map((name) => `${name} ${text}`)
      .toSorted()
      .join('\n')
  await publish(sorrow, write('one'))
  expect(await ran()).toBe(all('one'))
  expect(await ran()).toBe('run_always.sh one')
  await publish(sorrow, write('two'))
  expect(await ran()).toBe(all('two'))
  expect(await ran()).toBe('run_always.sh two')
  // also if the agent has to name the targets to chezmoi
  await torment.sh(`echo '{{ fail "no" }}' >.local/share/chezmoi/dot_t.tmpl`)
  expect(await ran()).toBe('run_always.sh two')
  await publish(sorrow, write('three'))
  expect(await ran()).toBe(all('three'))
})

test('A file whose script never gives the same output twice is named', async () => {
  const { sorrow, torment } = await makeDotfiles(root, { '.grows': 'one\n' })
  await sorrow.sh(`cd .local/share/chezmoi; rm dot_grows
    printf '#!/bin/sh\\ncat; echo more\\n' >modify_dot_grows`)
  await sorrow.sync()
  const ran = await torment.sync()
  expect(ran.outcome).toBe('synced')
  expect(kept(ran)).toEqual({
    '.grows': expect.stringContaining('still differs from the source after an apply'),
  })
})

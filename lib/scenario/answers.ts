import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fromHome } from '../lab-settings.ts'
import { run } from '../run.ts'
import { scratchDirectory } from '../scratch.ts'
import { answerWith, type Answer } from '../vm/served.ts'
import { lineOf, readHome, setLine, shared, syncs } from './dotfile-sync.ts'
import type { Case, EditCase, Scene } from './family.ts'
import type { Machine } from './machine.ts'
import { doAsTold } from './told.ts'
import { note, noted, seen, upgrades, withOptions } from './upgrade.ts'

const day = 86_400
const path = '/repository.git'
const page = '<!DOCTYPE html><html><form action="/sign-in"><input name="user"></form></html>\n'

/** Temporary answers, which may be over in an hour: the upgrade counts them as offline, not as a failure. */
const passing: Omit<Answer, 'path'>[] = [{ status: 503 }, { status: 429 }]

/** Answers that only a person can change: the upgrade fails and says what to do. */
const lasting: { what: string; answer: Omit<Answer, 'path'>; page?: true; reason: RegExp }[] = [
  {
    what: 'no login',
    answer: { status: 401, headers: { 'WWW-Authenticate': 'Basic realm="git"' } },
    reason: /; the remote wants a name and a password/,
  },
  { what: 'no right', answer: { status: 403 }, reason: /; the remote refuses access to this user/ },
  { what: 'no repository', answer: { status: 404 }, reason: /; look at the URL of the remote/ },
  {
    what: 'a web page to log in',
    answer: { status: 200, headers: { 'Content-Type': 'text/html' } },
    page: true,
    reason: /; the URL leads to a web page/,
  },
]

/** Reasons to reject a certificate; `guest` and `remote` are the days by which their clocks are off. */
const clocks: { what: string; guest: number; remote: number; reason: RegExp }[] = [
  {
    what: 'a self-signed certificate',
    ...{ guest: 0, remote: 0 },
    reason: /; the dates of its TLS certificate are valid, but its issuer is not trusted/,
  },
  {
    what: 'a guest whose clock is years behind',
    ...{ guest: -1000, remote: 0 },
    reason: /; the clock of this machine is wrong: it is \S+ here and \S+ on the remote/,
  },
  {
    what: 'an expired certificate',
    ...{ guest: 40, remote: 40 },
    reason: /; the certificate of the remote expired on /,
  },
]

/** Remotes behind a web server, and what it may answer in place of a repository. */
export const answers: Case[] = [
  {
    name: 'answers',
    title:
      'a web server answers for the remote with errors, a web page or a bad certificate: a temporary error is no failure, any other says what to do, and nothing changes',
    promise: 'offline',
    own: true,
    needs: ['clone'],
    limit: 400,
    ends: 'main',
    run: answered,
  },
  {
    name: 'from-tarball',
    title:
      'a host upgrades from a tarball on a web server: to a newer one, to an older one once that is accepted, and not to a missing one',
    promise: 'deploy',
    own: true,
    limit: 500,
    ends: 'main',
    run: fromTarball,
  },
]

/** The same answers from the dotfiles' remote. */
export const dotfileAnswers: EditCase = {
  name: 'answers',
  title:
    'a web server answers for the dotfiles’ remote with errors or a web page, before and after the first clone: no edit is lost, and the next run catches up',
  limit: 400,
  run: dotfilesAnswered,
}

async function answered(scene: Scene): Promise<void> {
  const { vm, world } = scene
  const to = (url: string): Promise<unknown> =>
    vm.user(`git -C ${fromHome(world.paths.flake)} remote set-url origin ${url}`)
  const scratch = scratchDirectory('answers')
  try {
    await world.config.commit(note(vm, 'two'), 'Two')
    const usual = await vm.askUser(`git -C ${fromHome(world.paths.flake)} remote get-url origin`)
    await to(`http://git.lab${path}`)
    for (const answer of passing) {
      scene.say(`the remote answers ${answer.status}`)
      answerWith(vm.host, { path, ...answer })
      await upgrades(scene, vm, { outcome: 'offline', phase: 'fetch' })
    }
    for (const { what, answer, page: withPage, reason } of lasting) {
      scene.say(`the remote has ${what}`)
      const file = withPage ? await written(scratch, page) : undefined
      answerWith(vm.host, { path, ...answer, ...(file ? { file } : {}) })
      await upgrades(scene, vm, { outcome: 'failed', phase: 'fetch', reason })
    }
    scene.say('the URL has a token in it')
    const token = 'lab-token'
    await to(`http://lab:${token}@git.lab${path}`)
    answerWith(vm.host, { path, status: 403 })
    await upgrades(scene, vm, { outcome: 'failed', phase: 'fetch' })
    const unit = `${vm.subject.unit}.service`
    const words = `{ cat /var/lib/nix-local-upgrade/status.json; journalctl --no-pager --boot -u ${unit}; } | grep -c ${token}`
    const times = await vm.ask(words, { allow: 'any' })
    scene.check('the token is in neither status.json nor the journal', '0', times)

    await to(`https://git.lab:80${path}`)
    const tls = await selfSigned(scratch)
    for (const { what, guest, remote, reason } of clocks) {
      scene.say(what)
      const date = new Date(Date.now() + remote * day * 1000).toUTCString()
      answerWith(vm.host, { path, status: 404, headers: { Date: date }, tls })
      await setClock(vm, guest)
      await upgrades(scene, vm, { outcome: 'failed', phase: 'fetch', reason })
    }
    await setClock(vm, 0)

    scene.check('nothing was deployed', scene.start(vm), await vm.running())
    await to(usual)
    await upgrades(scene, vm, { outcome: 'upgraded' })
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

async function dotfilesAnswered(scene: Scene): Promise<void> {
  const { vm, world, check } = scene
  const source = fromHome(world.paths.dotfiles)
  const url = await vm.askUser(`git -C ${source} remote get-url origin`)
  // a URL rewrite in the user's git config, as for a remote that has moved
  const instead = `git config --global url.http://git.lab${path}.insteadOf ${url}`
  const usual = `git config --global --remove-section url.http://git.lab${path}`
  const scratch = scratchDirectory('answers')
  const each = async (verb: string): Promise<void> => {
    for (const answer of passing) {
      answerWith(vm.host, { path, ...answer })
      await syncs(scene, vm, 'offline')
    }
    for (const { what, answer, page: withPage, reason } of lasting) {
      scene.say(`the remote has ${what}`)
      const file = withPage ? await written(scratch, page) : undefined
      answerWith(vm.host, { path, ...answer, ...(file ? { file } : {}) })
      const status = await syncs(scene, vm, `failed: Cannot ${verb}`)
      check(`the reason says what to do about ${what}`, reason, status.reason)
    }
  }
  try {
    await vm.user(`${instead}; ${setLine(shared, 3, 'line three')}`)
    await each('fetch')
    check('the edit is at home', 'line three', lineOf(await readHome(vm, shared), 3))
    await vm.user(usual)
    await syncs(scene, vm, 'synced')
    const trunk = async (line: number): Promise<string> =>
      lineOf(await world.dotfiles.read('dot_labrc'), line)
    check('the trunk has the edit', 'line three', await trunk(3))

    await vm.user(`${instead}; ${setLine(shared, 15, 'edited')}; mv ${source} ${source}.away`)
    await each('clone')
    check(
      'a failed clone leaves no files',
      '',
      (await vm.user(`ls -A ${source}`, { allow: 'any' })).stdout,
    )
    await vm.user(`${usual}; rm -rf ${source}.away`)
    await syncs(scene, vm, 'synced')
    check('the trunk has the edit made before the clone', 'edited', await trunk(15))

    // nor does a refused push resolve itself
    const hook = join(world.dotfiles.dir, 'hooks/pre-receive')
    mkdirSync(dirname(hook), { recursive: true })
    writeFileSync(hook, '#!/bin/sh\necho not today >&2\nexit 1\n', { mode: 0o755 })
    await vm.user(setLine(shared, 18, 'refused'))
    const status = await syncs(scene, vm, 'failed: Cannot push')
    check('the reason says that a hook refused the push', /hook declined/, status.reason)
    rmSync(hook)
    await syncs(scene, vm, 'synced')
    check('the trunk has the edit once the push is accepted', 'refused', await trunk(18))
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

async function fromTarball(scene: Scene): Promise<void> {
  const { vm, world } = scene
  const place = '/flake.tar.gz'
  const choice = `mode = lib.mkForce "remote"; flakeUrl = lib.mkForce "http://git.lab${place}";`
  const scratch = scratchDirectory('tarball')
  const offer = async (commit: string): Promise<void> => {
    const file = join(scratch, `${commit}.tar.gz`)
    await world.config.archive(commit, file)
    answerWith(vm.host, { path: place, status: 200, file })
  }
  try {
    const host = (more = ''): ReturnType<typeof withOptions> => withOptions(vm, choice, more)
    const one = await world.config.commit(host(), 'From a tarball')
    await upgrades(scene, vm, { outcome: 'upgraded' })
    await offer(one)
    await upgrades(scene, vm, { outcome: 'up-to-date' })
    const two = await world.config.commit(host(noted('two')), 'Two')
    await offer(two)
    await upgrades(scene, vm, { outcome: 'upgraded' })
    scene.check('the newer tarball runs', 'two', await seen(vm))
    for (const [status, comesTo, reason] of [
      [503, 'offline', /^Cannot reach the remote/],
      [404, 'failed', /; look at the URL of the remote/],
    ] as const) {
      answerWith(vm.host, { path: place, status })
      await upgrades(scene, vm, { outcome: comesTo, phase: 'fetch', reason })
    }
    await offer(one)
    const { reason } = await upgrades(scene, vm, { outcome: 'diverged', phase: 'fetch' })
    scene.check(
      'the reason says that the tarball is older',
      / is older than what this host had; /,
      reason ?? '',
    )
    await doAsTold(scene, vm, reason)
    scene.check('the older tarball runs once it is accepted', 'none', await seen(vm))
    await upgrades(scene, vm, { outcome: 'up-to-date' })
    // back to its clone: the revision of a tarball is no commit, so nothing can descend from it
    const three = await world.config.commit(note(vm, 'three'), 'Three')
    await offer(three)
    await upgrades(scene, vm, { outcome: 'upgraded' })
    const { to } = await upgrades(scene, vm, { outcome: 'up-to-date' })
    scene.check('the status names the commit of the clone', three, to?.commit)
    scene.check('the commit of the clone runs', 'three', await seen(vm))
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

async function written(directory: string, text: string): Promise<string> {
  const { writeFile } = await import('../write-file.ts')
  const file = join(directory, 'page')
  writeFile(file, text, { over: 'any' })
  return file
}

/** A key and a self-signed certificate for git.lab, valid for 30 days. */
async function selfSigned(directory: string): Promise<{ key: string; cert: string }> {
  const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')]
  await run('openssl', [
    ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '30', '-subj', '/CN=git.lab'],
    ...['-addext', 'subjectAltName=DNS:git.lab', '-keyout', key, '-out', cert],
  ])
  return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
}

/** Sets a guest's clock to this machine's, shifted by a number of days. */
const setClock = (vm: Machine, days: number): Promise<unknown> =>
  vm.root(`date -s @${Math.round(Date.now() / 1000) + days * day} >/dev/null`)

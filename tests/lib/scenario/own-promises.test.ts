import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { labSettings } from '../../../lib/lab-settings.ts'
import type { Scene } from '../../../lib/scenario/family.ts'
import type { Machine } from '../../../lib/scenario/machine.ts'
import { changesOf, keepsPromise, untilSo } from '../../../lib/scenario/own-promise.ts'
import { ownPromises, readPromises } from '../../../lib/scenario/own-promises.ts'
import { git, remote, type Remote } from '../../../lib/scenario/remote.ts'
import { labSubject } from '../../../lib/scenario/subject-lab.ts'
import { unreachedUpgrade } from '../../../lib/scenario/upgrade.ts'
import { families } from '../../../tasks/pipelines/families.ts'

let flake: string
beforeEach(() => {
  flake = mkdtempSync(join(tmpdir(), 'promises-'))
})
afterEach(() => {
  rmSync(flake, { recursive: true })
  vi.unstubAllEnvs()
})
const toml = (text: string): void => writeFileSync(join(flake, 'lab.toml'), text)

test('a promise in lab.toml is read with defaults for what it leaves out', async () => {
  toml(`user = "mia"
[[promise]]
name = "web"
title = "the web server answers"
about = "rollback"
shell = "rm web.html"
fault = "delay"
ms = 300
holds = "curl localhost"
fails = ["false", "test -e /run/no"]
within = 10
ends = "start"

[[promise]]
name = "bare"
title = "it is refused"
shell = "rm hosts/*"
ends = "start"
`)
  const [web, bare] = await readPromises(flake)
  expect(web).toEqual({
    ...{ name: 'web', title: 'the web server answers', about: 'rollback', shell: 'rm web.html' },
    ...{ patch: undefined, reboot: false, within: 10, ends: 'start' },
    ...{ holds: ['curl localhost'], fails: ['false', 'test -e /run/no'] },
    fault: { kind: 'delay', link: 'uplink', direction: 'out', value: 300 },
  })
  expect(bare).toMatchObject({ about: 'deploy', holds: [], fails: [], within: 30 })
  const { cases } = await ownPromises(flake)
  expect(cases.map(({ name, promise, ends }) => [name, promise, ends])).toEqual([
    ['web', 'rollback', 'start'],
    ['bare', 'deploy', 'start'],
  ])
  // the rest of the file is read as usual
  expect((await labSettings(flake)).user).toBe('mia')
})

const whole = 'name = "a"\ntitle = "A"\nholds = "true"\n'
test.each([
  ['[[promise]]\nname = "a"\n', /\(line 1\): a promise has a name and a title/],
  ...['true', '["a"]', '""', '"A"', `"${'a'.repeat(64)}"`].map((name): [string, RegExp] => [
    `[[promise]]\nname = ${name}\n`,
    /`name` of `.*` \(line 2\) as a name of 1 to 63 of a-z, 0-9 and -: /,
  ]),
  ...['" "', '"\\t"', '"a\\u001b[31m"', '"a\\rb"', '1'].map((title): [string, RegExp] => [
    `[[promise]]\ntitle = ${title}\n`,
    /`title` of `.*` \(line 2\) as a line of text: /,
  ]),
  [`[[promise]]\n${whole}patch = "."\n`, /\(line 5\): there is no file `/],
  [`[[promise]]\n${whole}hold = "x"\n`, /\(line 5\): There is no setting `hold`|`hold`/],
  [`[[promise]]\n${whole}within = 0\n`, /`within` of `.*` \(line 5\) as seconds from 1 to 600: 0/],
  [`[[promise]]\n${whole}about = "luck"\n`, /`about` of `.*` \(line 5\) as one of deploy, /],
  [`[[promise]]\n${whole}fault = "fire"\n`, /`fault` of `.*` \(line 5\) as one of cut, flap/],
  [`[[promise]]\n${whole}fault = "delay"\n`, /\(line 5\): Cannot inject delay without ms/],
  [`[[promise]]\n${whole}fault = "cut"\nms = 3\n`, /\(line 5\): Cannot inject cut with ms/],
  [`[[promise]]\n${whole}ms = 300\n`, /\(line 5\): `ms` needs a fault, and there is none/],
  [
    `[[promise]]\n${whole}shell = "x"\npatch = "y"\n`,
    /\(line 6\): a promise has shell or patch, not both/,
  ],
  [`[[promise]]\n${whole}patch = "../x.patch"\n`, /`patch` of `.*` \(line 5\) as a path below/],
  [`[[promise]]\n${whole}patch = "x.patch"\n`, /\(line 5\): there is no file `.*x\.patch`/],
  [`[[promise]]\n${whole}[[promise]]\n${whole}`, /\(line 6\): `a` is there already/],
  ['[[promise]]\nname = "a"\ntitle = "A"\n', /\(line 1\): `a` would check nothing/],
  [
    '[[promise]]\nname = "a"\ntitle = "A"\nends = "start"\n',
    /\(line 4\): `a` would change nothing, so it cannot end otherwise/,
  ],
  ['promise = "web"\n', /Cannot read `promise` of/],
  ['[promise]\nname = "a"\n', /Cannot read `promise` of/],
  ['[[promise]]\nname = "a\n', /Cannot read `.*`, line 2/],
])('%s is refused, and its line is named', async (text, said) => {
  toml(text)
  const failed = (await readPromises(flake).catch((error: Error) => error)) as Error
  expect(failed.message).toMatch(said)
  expect(failed.message).not.toContain('\n')
})

test('without promises in lab.toml the family does not exist, and asking for it is an error', async () => {
  vi.stubEnv('LAB_FLAKE', flake)
  expect((await families()).map(({ name }) => name)).not.toContain('promises')
  await expect(families(['promises'])).rejects.toThrow('Cannot find a promise of your own')
  toml(`[[promise]]\n${whole}`)
  expect((await families()).at(-1)).toMatchObject({ name: 'promises', cases: [{ name: 'a' }] })
})

test('a family that is named twice runs once', async () => {
  const twice = await families(['full-workflow', 'auto-upgrade', 'full-workflow'])
  expect(twice.map(({ name }) => name)).toEqual(['full-workflow', 'auto-upgrade'])
})

async function world(): Promise<{ config: Remote; branch: string }> {
  const dir = join(flake, 'config.git')
  await git(['init', '--quiet', '--bare', '--initial-branch=main', dir])
  const config = remote(dir)
  await config.commit({ 'flake.nix': 'mine\n', 'hosts/a.nix': 'one\n', 'old.nix': 'x\n' }, 'Start')
  return { config, branch: 'main' }
}

test('a shell command runs in a clone of the flake, and its changes become the commit', async () => {
  const shell = 'sed -i s/mine/ours/ flake.nix; rm old.nix; echo "$HOST" >new.nix'
  expect(await changesOf(await world(), { name: 'a', shell }, flake, 'sorrow')).toEqual({
    'flake.nix': 'ours\n',
    'old.nix': null,
    'new.nix': 'sorrow\n',
  })
})

test('a patch path is relative to lab.toml', async () => {
  mkdirSync(join(flake, 'lab'))
  writeFileSync(
    join(flake, 'lab/two.patch'),
    '--- a/hosts/a.nix\n+++ b/hosts/a.nix\n@@ -1 +1 @@\n-one\n+two\n',
  )
  const changes = await changesOf(
    await world(),
    { name: 'a', patch: 'lab/two.patch' },
    flake,
    'sorrow',
  )
  expect(changes).toEqual({ 'hosts/a.nix': 'two\n' })
})

test.each([
  ['true', 'Cannot make the commit of `a`: it changes nothing'],
  ['exit 3', 'Cannot make the commit of `a`: '],
  ["printf '\\377' >x", 'Cannot commit `x`: it is not text'],
])('the command `%s` makes no commit', async (shell, said) => {
  await expect(changesOf(await world(), { name: 'a', shell }, flake, 'sorrow')).rejects.toThrow(
    said,
  )
})

test.each<[boolean, string, boolean]>([
  [true, 'true', true],
  [true, 'echo no; false', false],
  [true, '( # half', false],
  [false, 'echo no; exit 3', true],
  [false, 'command -v lab-none', true],
  [false, '! true # with a remark', true],
  [false, 'true', false],
  // a typing error does not count as a promise kept
  [false, 'lab-none --quiet', false],
  [false, '/etc/hostname', false],
  // nor does one whose output is redirected, or that is part of a pipe
  [false, 'lab-none --quiet >/dev/null 2>&1', false],
  [false, '/etc/hostname >/dev/null 2>&1', false],
  [false, 'lab-none 2>/dev/null | grep --quiet one', false],
  [false, 'false >/dev/null 2>&1', true],
  [false, '( # half', false],
])('with `holds` %s the command `%s` gives %s', (holds, command, so) => {
  const { status, stdout } = spawnSync('sh', ['-c', untilSo(command, 1, holds)], {
    encoding: 'utf8',
  })
  expect(status === 0, stdout).toBe(so)
})

/** The checks that are red if the upgrades of a promise end with this result of systemd or outcome of the agent. */
async function red(
  about: string,
  ends: string,
  outcomes: string[],
  more: { words?: false; commit?: false } = {},
): Promise<string[]> {
  const commit = more.commit === false ? '' : 'shell = "echo x >>flake.nix"\n'
  toml(`[[promise]]\n${whole}about = "${about}"\nends = "${ends}"\n${commit}`)
  const [one] = await readPromises(flake)
  const found: string[] = []
  const check: Scene['check'] = (name, expected, seen) => {
    const held = expected instanceof RegExp ? expected.test(String(seen)) : expected === seen
    if (!held) found.push(`${name.replace("sorrow's upgrade: ", '')}: ${seen}`)
    return held
  }
  let run = 0
  const said = (): string => {
    const outcome = outcomes[run++]!
    const status = JSON.stringify({ outcome, reason: '' })
    return more.words === false ? `${outcome}\n` : `exit-code\n${outcome === 'old' ? '' : status}`
  }
  const vm = {
    ...{ host: 'sorrow', patience: 1, spend: (_: string, work: () => unknown) => work() },
    subject: more.words === false ? { ...labSubject, status: undefined } : labSubject,
    root: async () => ({ stdout: '', stderr: '', code: 0 }),
    disconnect: () => {},
    agent: async (script: string) => ({
      ...{ stderr: '', code: 0 },
      stdout: script.includes('nix-local-upgrade') ? said() : '',
    }),
  }
  const scene = { vm, world: await world(), check, event: () => {}, say: () => {} }
  const mine = { ...one!, fault: undefined }
  await keepsPromise(scene as unknown as Scene, mine, flake)
  expect((vm as unknown as Machine).host).toBe('sorrow')
  return found
}

test.each([
  ['checks', 'start', 'validation-failed'],
  ['rollback', 'start', 'switch-failed'],
  ['refuse', 'start', 'build-failed'],
  ['history', 'start', 'diverged'],
  ['fallback', 'golden', 'upgraded'],
  ['deploy', 'start', 'conflict'],
])(
  'a promise about %s that ends with %s holds only if the outcome is %s',
  async (about, ends, outcome) => {
    expect(await red(about, ends, [outcome])).toEqual([])
    // the upgrade never reached what the promise is about
    for (const other of ['offline', 'failed', 'locked'])
      expect(await red(about, ends, [other])).toEqual([`outcome: ${other}`])
    expect(await red(about, ends, ['old'])).toEqual(['outcome: undefined'])
  },
)

test('without a commit, or if the commit runs, any outcome is accepted', async () => {
  expect(await red('checks', 'start', ['up-to-date'], { commit: false })).toEqual([])
  expect(await red('deploy', 'main', ['offline'])).toEqual([])
  expect(await red('checks', 'start', ['build-failed'])).toEqual(['outcome: build-failed'])
})

test('a subject without a status must not end with success', async () => {
  expect(await red('checks', 'start', ['exit-code'], { words: false })).toEqual([])
  expect(await red('checks', 'start', ['success'], { words: false })).toEqual([
    'the unit ends: success',
  ])
})

test('a status left by an earlier upgrade does not count for this one', async () => {
  const status = join(flake, 'status.json')
  writeFileSync(status, '{"outcome":"validation-failed"}')
  const upgrade = (systemctl: string): ReturnType<typeof unreachedUpgrade> => {
    writeFileSync(join(flake, 'systemctl'), `#!/bin/sh\n${systemctl}\n`, { mode: 0o755 })
    const env = { ...process.env, PATH: `${flake}:${process.env['PATH']}` }
    const agent = async (script: string) => {
      const { stdout, status: code } = spawnSync('sh', ['-c', script], { env, encoding: 'utf8' })
      expect(code).toBe(0)
      return { stdout }
    }
    const subject = { ...labSubject, status }
    const root = async () => ({ stdout: '' })
    return unreachedUpgrade({ subject, agent, root, disconnect: () => {} } as unknown as Machine)
  }
  const result = '[ "$1" != show ] || echo success'
  expect(await upgrade(result)).toEqual({ result: 'success', status: undefined })
  const writes = `[ "$1" != start ] || { echo '{"outcome":"offline"}' >${status}.new; mv ${status}.new ${status}; }`
  expect(await upgrade(`${writes}; ${result}`)).toMatchObject({ status: { outcome: 'offline' } })
})

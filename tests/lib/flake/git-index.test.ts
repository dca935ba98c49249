import { spawnSync } from 'node:child_process'
import { chownSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { intendToAdd } from '../../../lib/flake/git-index.ts'

let flake: string
beforeEach(() => {
  flake = realpathSync(mkdtempSync(join(tmpdir(), 'git-index-')))
  git('init', '--quiet')
  for (const host of ['alpha', 'sorrow']) {
    mkdirSync(join(flake, 'hosts', host), { recursive: true })
    writeFileSync(join(flake, 'hosts', host, 'default.nix'), '{ }\n')
  }
})
afterEach(() => rmSync(flake, { recursive: true, force: true }))

const git = (...args: string[]): string =>
  spawnSync('git', ['-C', flake, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args], {
    encoding: 'utf8',
  }).stdout
const mark = () => intendToAdd(flake, [join(flake, 'hosts/sorrow')], false)
const sorrow = 'hosts/sorrow/default.nix'

test('A file that git ignores is not marked, and the note says that the flake does not see it', async () => {
  writeFileSync(join(flake, '.gitignore'), 'hosts/sorrow\n')
  const { marked, notes } = await mark()
  expect(marked).toEqual([])
  expect(notes).toEqual([
    `git ignores ${sorrow}, and a flake does not see it: git -C ${flake} add --force --intent-to-add ${sorrow}`,
  ])
  expect(git('ls-files')).toBe('')
  // the command in the note marks the file
  spawnSync('sh', ['-c', notes[0]!.split(': ')[1]!])
  expect(git('ls-files')).toBe(`${sorrow}\n`)
  expect(await mark()).toEqual({ marked: [], notes: [] })
})

test('A file that git ignores does not prevent the others from being marked', async () => {
  writeFileSync(join(flake, '.gitignore'), 'hardware-configuration.nix\n')
  const hardware = 'hosts/sorrow/hardware-configuration.nix'
  writeFileSync(join(flake, hardware), '{ }\n')
  const both = [sorrow, hardware].map((file) => join(flake, file))
  const { marked, notes } = await intendToAdd(flake, both, false)
  expect(marked).toEqual([sorrow])
  expect(notes).toEqual([expect.stringContaining(`git ignores ${hardware}, `)])
  expect(git('ls-files')).toBe(`${sorrow}\n`)
})

test('A dry run reports what would be marked, even for files not written yet', async () => {
  writeFileSync(join(flake, '.gitignore'), 'hardware-configuration.nix\n')
  const [hardware, fresh] = ['hosts/web/hardware-configuration.nix', 'hosts/web/é.nix']
  const all = [sorrow, hardware, fresh, 'hosts/gone.nix'].map((file) => join(flake, file))
  git('add', sorrow)
  writeFileSync(join(flake, 'hosts/gone.nix'), '{ }\n')
  git('add', 'hosts/gone.nix')
  rmSync(join(flake, 'hosts/gone.nix'))
  const told = await intendToAdd(flake, all, true)
  expect(told).toEqual({
    marked: [fresh],
    notes: [expect.stringContaining(`git ignores ${hardware}, `)],
  })
  mkdirSync(join(flake, 'hosts/web'))
  for (const file of all.slice(1)) writeFileSync(file, '{ }\n')
  expect(await intendToAdd(flake, all, false)).toEqual(told)
})

test('An ignored file that is not a Nix file is not noted', async () => {
  writeFileSync(join(flake, '.gitignore'), 'key\n')
  writeFileSync(join(flake, 'hosts/sorrow/key'), '')
  expect(await mark()).toEqual({ marked: [sorrow], notes: [] })
})

test('An ignored file that was passed by name is noted, whatever its type', async () => {
  writeFileSync(join(flake, '.gitignore'), 'secrets\n')
  mkdirSync(join(flake, 'secrets'))
  const file = join(flake, 'secrets/base.yaml')
  const notes = [expect.stringContaining('git ignores secrets/base.yaml, and a flake does not')]
  expect(await intendToAdd(flake, [file], true)).toEqual({ marked: [], notes })
  writeFileSync(file, '')
  expect(await intendToAdd(flake, [file], false)).toEqual({ marked: [], notes })
})

test('A file outside a sparse checkout is marked like any other', async () => {
  git('add', 'hosts/alpha')
  git('commit', '--quiet', '--message', 'alpha')
  git('sparse-checkout', 'set', '--cone', 'hosts/alpha')
  expect(await mark()).toEqual({ marked: [sorrow], notes: [] })
  expect(git('ls-files')).toContain(sorrow)
})

test('In another user’s repository the suggested command first adds safe.directory', async ({
  skip,
}) => {
  if (process.getuid?.() !== 0) skip('only root can give a directory away')
  chownSync(flake, 65534, 65534)
  chownSync(join(flake, '.git'), 65534, 65534)
  expect((await mark()).notes).toEqual([
    expect.stringMatching(
      /dubious ownership.*\): git config --global --add safe\.directory \S+ && git -C \S+ add --sparse --intent-to-add /,
    ),
  ])
})

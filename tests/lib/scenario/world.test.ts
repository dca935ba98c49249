import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Guest } from '../../../lib/nix/guest.ts'
import { evaluationStore } from '../../../lib/nix/store.ts'
import { breakCache, cacheOf, served } from '../../../lib/vm/served.ts'
import { hostModule } from '../../../lib/scenario/host-module.ts'
import { closeWorlds, openWorld, template } from '../../../lib/scenario/world.ts'

const debian: Guest = { kind: 'debian', attribute: 'labConfigurations', reason: '' }

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'world-'))
  vi.stubEnv('LAB_HOME', home)
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

test('worlds start alike and diverge, and two guests of one world share its remotes', async () => {
  const from = await template(debian, ['sorrow', 'torment'])
  expect(await template(debian, ['sorrow', 'torment'])).toEqual(from)
  const one = openWorld('run/one', from, ['sorrow', 'torment'])
  expect(await one.config.head()).toBe(from.config)
  expect(await one.dotfiles.head()).toBe(from.dotfiles)
  expect(realpathSync(join(served('sorrow'), 'config.git'))).toBe(one.config.dir)
  expect(realpathSync(join(served('torment'), 'config.git'))).toBe(one.config.dir)

  const other = openWorld('run/other', from, ['torment'])
  await one.config.commit({ [hostModule('sorrow')]: '{ oops' }, 'Break')
  expect(await other.config.head()).toBe(from.config)
  expect(realpathSync(join(served('sorrow'), 'config.git'))).toBe(one.config.dir)
  expect(realpathSync(join(served('torment'), 'dotfiles.git'))).toBe(other.dotfiles.dir)

  closeWorlds(['sorrow', 'torment'])
  expect(readdirSync(served('sorrow'))).toEqual([])
  expect(readdirSync(served('torment'))).toEqual([])
  expect(await other.config.head()).toBe(from.config)
})

test('a guest gets the store as its binary cache, intact again in each new world', async () => {
  const from = await template(debian, ['sorrow'])
  openWorld('run/one', from, ['sorrow'])
  const store = evaluationStore()[1]!
  expect(realpathSync(join(cacheOf('sorrow'), 'store'))).toBe(realpathSync(store))
  breakCache('sorrow', 'wrong')
  expect(readdirSync(cacheOf('sorrow'))).toEqual(['fault', 'store'])
  breakCache('sorrow', 'gone')
  expect(readdirSync(cacheOf('sorrow'))).toEqual(['fault'])
  openWorld('run/other', from, ['sorrow'])
  expect(readdirSync(cacheOf('sorrow'))).toEqual(['store'])
  // the store that any NixOS machine has, or another one that NIX_REMOTE names
  vi.stubEnv('NIX_REMOTE', home)
  openWorld('run/nixos', { ...from, guest: { ...debian, kind: 'nixos' } }, ['sorrow'])
  expect(readlinkSync(join(cacheOf('sorrow'), 'store'))).toBe(home)
  vi.stubEnv('NIX_REMOTE', 'daemon')
  openWorld('run/nixos', { ...from, guest: { ...debian, kind: 'nixos' } }, ['sorrow'])
  expect(readlinkSync(join(cacheOf('sorrow'), 'store'))).toBe('/')
})

test('the git daemon serves a guest its own world, and no other', async () => {
  const from = await template(debian, ['sorrow'])
  openWorld('run/one', from, ['sorrow'])
  const daemon = `git daemon --inetd --export-all --base-path=${served('sorrow')} ${served('sorrow')}`
  const list = (path: string): string =>
    execFileSync(
      'git',
      ['-c', 'protocol.ext.allow=always', 'ls-remote', `ext::${daemon} %G${path}`],
      {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    )
  expect(list('/config.git')).toContain(`${from.config}\trefs/heads/main`)
  expect(() => list('/../.worlds/run/one/config.git')).toThrow()
})

test('a host is evaluated at a given commit, with the lab’s settings on top', async () => {
  const store = evaluationStore()
  const from = await template(debian, ['sorrow'])
  const world = openWorld('run/one', from, ['sorrow'])
  const start = await world.host('sorrow', 'main', store)
  expect(start.facts).toMatchObject({ hostName: 'sorrow', schedule: 'yearly' })
  const change = '{ environment.etc.changed.text = "yes"; }\n'
  await world.config.commit({ [hostModule('sorrow')]: change }, 'Change')
  expect((await world.host('sorrow', 'main', store)).toplevel).not.toBe(start.toplevel)
  expect(await world.host('sorrow', from.config, store)).toEqual(start)
  await world.config.commit({ [hostModule('sorrow')]: '{ oops' }, 'Break')
  await expect(world.host('sorrow', 'main', store)).rejects.toThrow('syntax error')
})

test('a cut is part of the first commit, so that the baseline includes it', async () => {
  const plain = await template(debian, ['sorrow'])
  const cut = await template(debian, ['sorrow'], { 'nix/agents/show-golden.sh': '#!/bin/sh\n' })
  expect(cut.config).not.toBe(plain.config)
  const world = openWorld('run/cut', cut, ['sorrow'])
  expect(await world.config.read('nix/agents/show-golden.sh')).toBe('#!/bin/sh\n')
})

test('the branch from lab.toml exists in both remotes', async () => {
  const plain = await template(debian, ['sorrow'])
  vi.stubEnv('LAB_BRANCH', 'live')
  const from = await template(debian, ['sorrow'])
  expect(from).toMatchObject({ branch: 'live', config: plain.config })
  // the same commits in another repository
  expect(from.dir).not.toBe(plain.dir)
  const world = openWorld('run/one', from, ['sorrow'])
  for (const remote of [world.config, world.dotfiles]) {
    expect(await remote.head('main')).toBeUndefined()
    expect(await remote.head('live')).toBe(await remote.head())
  }
  const id = await world.config.commit({ [hostModule('sorrow')]: '{ }\n# again\n' }, 'Change')
  expect(await world.config.head('live')).toBe(id)
  expect(await world.config.read(hostModule('sorrow'))).toContain('again')
})

test('a user’s repository at the path of a remote is refused and left alone', async () => {
  const kept = join(served('sorrow'), 'config.git', 'objects')
  mkdirSync(kept, { recursive: true })
  const from = await template(debian, ['sorrow'])
  expect(() => openWorld('run/one', from, ['sorrow'])).toThrow("it is not the lab's")
  closeWorlds(['sorrow'])
  expect(realpathSync(kept)).toBe(kept)
})

test('remotes contain the flake unchanged, and the lab’s changes are one commit on top', async () => {
  const flake = join(home, 'flake')
  mkdirSync(flake)
  const git = (...args: string[]): string =>
    execFileSync('git', ['-C', flake, ...args], { encoding: 'utf8' })
  const text = `{
  # an input that only the arguments name
  inputs.other = { url = "path:./other"; flake = false; };
  outputs = { self, other, ... }@inputs: { # as somebody writes it
    labConfigurations.one = "one"; packages = { };
  };
}
`
  writeFileSync(join(flake, 'flake.nix'), text)
  writeFileSync(
    join(flake, 'flake.lock'),
    '{ "nodes": { "root": { } }, "root": "root", "version": 7 }',
  )
  const picture = Buffer.from([0, 255, 13, 10, 128])
  writeFileSync(join(flake, 'picture'), picture)
  symlinkSync('picture', join(flake, 'link'))
  writeFileSync(join(flake, 'untracked'), '')
  git('init', '--quiet')
  git('add', 'flake.nix', 'flake.lock', 'picture', 'link')
  vi.stubEnv('LAB_FLAKE', flake)
  const from = await template(debian, ['one'])
  const remote = (...args: string[]): Buffer =>
    execFileSync('git', ['--git-dir', join(from.dir, 'config.git'), ...args])
  const list = (commit: string): string => remote('ls-tree', '-r', commit).toString()
  // as git itself would commit the files
  expect(list('main^')).toBe(git('ls-tree', '-r', git('write-tree').trim()))
  expect(remote('show', 'main:picture')).toEqual(picture)
  const changed = remote('diff', '--name-only', '--no-renames', 'main^', 'main').toString()
  expect(
    changed
      .trim()
      .split('\n')
      .filter((path) => !path.startsWith('world/')),
  ).toEqual(['flake.nix'])
  expect(remote('show', 'main:flake.nix').toString()).toBe(
    text.replace(': { # as', ': import ./world ({ # as').replace('  };\n}\n', '  });\n}\n'),
  )
})

test('a flake that already has a directory of that name is refused', async () => {
  const flake = join(home, 'flake')
  mkdirSync(join(flake, 'world'), { recursive: true })
  writeFileSync(join(flake, 'flake.nix'), '{ outputs = _: { }; }')
  writeFileSync(join(flake, 'world/default.nix'), '{ }')
  execFileSync('git', ['-C', flake, 'init', '--quiet'])
  execFileSync('git', ['-C', flake, 'add', '.'])
  vi.stubEnv('LAB_FLAKE', flake)
  await expect(template(debian, [])).rejects.toThrow('it has `world` itself')
})

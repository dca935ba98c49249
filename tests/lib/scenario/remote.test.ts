import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { git, remote, type Remote } from '../../../lib/scenario/remote.ts'

let dir: string
let origin: Remote
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'remote-'))
  await git(['init', '--quiet', '--bare', '--initial-branch=main', join(dir, 'origin.git')])
  origin = remote(join(dir, 'origin.git'))
})
afterEach(() => rmSync(dir, { recursive: true }))

test('commits add, edit and remove files, and a clone has them', async () => {
  await origin.commit({ 'a/one': '1\n', two: '2\n', 'run.sh': '#!/bin/sh\n' }, 'Start')
  const second = await origin.commit({ 'a/one': (text) => `${text}more\n`, two: null }, 'Edit')
  expect(await origin.head()).toBe(second)
  expect(await origin.read('a/one')).toBe('1\nmore\n')
  expect(await origin.read('two')).toBeUndefined()
  const clone = join(dir, 'clone')
  execFileSync('git', ['clone', '--quiet', origin.dir, clone])
  expect(readFileSync(join(clone, 'a/one'), 'utf8')).toBe('1\nmore\n')
  expect(
    execFileSync('git', ['-C', clone, 'ls-files', '-s', 'run.sh'], { encoding: 'utf8' }),
  ).toMatch(/^100755/)
})

test('the same history has the same ids', async () => {
  const other = join(dir, 'other.git')
  await git(['init', '--quiet', '--bare', '--initial-branch=main', other])
  for (const each of [origin, remote(other)]) {
    await each.commit({ one: '1' }, 'Start')
    await each.commit({ one: '2' }, 'Next')
  }
  expect(await remote(other).commits()).toEqual(await origin.commits())
})

test('commits dropped by the lab’s own forced push no longer count as made', async () => {
  const start = await origin.commit({ one: '1' }, 'Start')
  const second = await origin.commit({ one: '2' }, 'Second')
  const other = await origin.commit({ one: '3' }, 'Diverged', { parent: start })
  expect(await origin.head()).toBe(other)
  expect(await origin.made()).toEqual([start, other])
  expect(await origin.commits()).not.toContain(second)
  await origin.move('main', start)
  expect(await origin.made()).toEqual([start])
})

test('a commit dropped by a foreign forced push still counts as made', async () => {
  const start = await origin.commit({ one: '1' }, 'Start')
  const second = await origin.commit({ one: '2' }, 'Second')
  execFileSync('git', ['--git-dir', origin.dir, 'update-ref', 'refs/heads/main', start])
  expect(await origin.made()).toContain(second)
  expect(await origin.commits()).not.toContain(second)
})

test('a commit follows those below it, also once it is dropped, and no other', async () => {
  const start = await origin.commit({ one: '1' }, 'Start')
  const second = await origin.commit({ one: '2' }, 'Second')
  const other = await origin.commit({ one: '3' }, 'Other', { parent: start })
  expect(await origin.follows(second, start)).toBe(true)
  expect(await origin.follows(start, start)).toBe(true)
  expect(await origin.follows(second, other)).toBe(false)
  expect(await origin.follows(start, second)).toBe(false)
  expect(await origin.follows('a'.repeat(40), start)).toBe(false)
  expect(await origin.follows('sha256-no+commit=', start)).toBe(false)
})

test('editing a missing file fails and names it', async () => {
  await origin.commit({ one: '1' }, 'Start')
  await expect(origin.commit({ none: (text) => text }, 'Edit')).rejects.toThrow(
    'Cannot edit `none`',
  )
})

test('files of a work tree are stored with their bytes and mode, and missing ones are left out', async () => {
  const tree = mkdtempSync(join(dir, 'tree-'))
  writeFileSync(join(tree, 'one'), Buffer.from([0, 255]))
  chmodSync(join(tree, 'one'), 0o755)
  const taken = await origin.take(tree, ['one', 'gone'])
  await origin.commit({ two: '2\n' }, 'Start', { tree: taken })
  const list = execFileSync('git', ['--git-dir', origin.dir, 'ls-tree', '-r', 'main'])
  expect(list.toString()).toMatch(/^100755 blob \w+\tone\n100644 blob \w+\ttwo\n$/)
})

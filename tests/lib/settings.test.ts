import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { bytes, labCache, labHome, loadEnv, runtimeDir, socketDir } from '../../lib/settings.ts'

afterEach(() => vi.unstubAllEnvs())

test.each([
  ['512M', 512 * 1024 ** 2],
  ['2G', 2 * 1024 ** 3],
  ['1.5GiB', 1.5 * 1024 ** 3],
  ['20GB', 20 * 1024 ** 3],
])('%s is accepted as a size', (text, expected) => {
  expect(bytes(text, 'memory')).toBe(expected)
})

test.each(['', '2', '-2G', '0G', '2 gigs', '2G; rm', 'NaNG', '1e3G'])(
  '%j is refused as a size',
  (text) => {
    expect(() => bytes(text, 'memory')).toThrow('as memory')
  },
)

test('directories come from LAB_*, then XDG, then the home directory', () => {
  vi.stubEnv('LAB_HOME', '')
  vi.stubEnv('XDG_STATE_HOME', '')
  expect(labHome()).toBe(`${homedir()}/.local/state/gitops-vm-lab`)
  vi.stubEnv('XDG_STATE_HOME', '/x')
  expect(labHome()).toBe('/x/gitops-vm-lab')
  vi.stubEnv('LAB_HOME', '~/lab')
  expect(labHome()).toBe(`${homedir()}/lab`)
  vi.stubEnv('LAB_CACHE', '/c/./d')
  expect(labCache()).toBe('/c/d')
})

test('an empty HOME is ignored in favour of the user’s real home', () => {
  for (const name of ['LAB_HOME', 'XDG_STATE_HOME', 'HOME']) vi.stubEnv(name, '')
  expect(labHome()).toBe(`${userInfo().homedir}/.local/state/gitops-vm-lab`)
  vi.stubEnv('LAB_HOME', '~/lab')
  expect(labHome()).toBe(`${userInfo().homedir}/lab`)
})

test('socket paths are short and differ by LAB_HOME, however long that is', () => {
  vi.stubEnv('XDG_RUNTIME_DIR', `/tmp/${'r'.repeat(90)}`)
  vi.stubEnv('LAB_HOME', `/tmp/${'h'.repeat(200)}`)
  const one = runtimeDir()
  vi.stubEnv('LAB_HOME', `/tmp/${'h'.repeat(201)}`)
  expect(runtimeDir()).not.toBe(one)
  expect(`${socketDir('n'.repeat(63))}/console`.length).toBeLessThan(104)
  expect(socketDir('n'.repeat(63))).not.toBe(socketDir('n'.repeat(62)))
})

describe('.env', () => {
  async function load(text: string | Buffer): Promise<void> {
    const dir = mkdtempSync(join(tmpdir(), 'env-'))
    vi.stubEnv('LAB_ENV_FILE', join(dir, '.env'))
    for (const name of ['LAB_HOME', 'LAB_CACHE', 'LAB_CPUS', 'MINE']) vi.stubEnv(name, undefined)
    writeFileSync(join(dir, '.env'), text)
    await loadEnv().finally(() => rmSync(dir, { recursive: true }))
  }

  test.each([
    ['LAB_HOME=/x\n'],
    ['\uFEFFLAB_HOME=/x\r\nLAB_CPUS=2\r\n'],
    ['# LAB_HOMES=/y\n\n  export LAB_HOME = "/x" # here\n'],
    ["LAB_CPUS=\nMINE='LAB_HOME'\nMINE TOO\nLAB_HOME='/x'"],
    ["MINE=$HOME\nLAB_HOME='/x'\n"],
    ["MINE=a#b\nLAB_HOME=/x # a#b\nLAB_CPUS='2'#two\n#LAB_HOME=/y#z\nLAB_CACHE=#none\n"],
  ])('%j is read', async (text) => {
    await load(text)
    expect(labHome()).toBe('/x')
  })

  test('has paths relative to the file, and ~ for the home', async () => {
    await load('LAB_HOME=state\nLAB_CACHE=~/cache\n')
    expect(labHome()).toBe(join(dirname(process.env['LAB_ENV_FILE']!), 'state'))
    expect(labCache()).toBe(join(homedir(), 'cache'))
  })

  test('is refused if it is named and does not exist, but an empty name is ignored', async () => {
    vi.stubEnv('LAB_ENV_FILE', '')
    await loadEnv()
    vi.stubEnv('LAB_ENV_FILE', '/nonexistent/env')
    await expect(loadEnv()).rejects.toMatchObject({
      message: 'Cannot read `/nonexistent/env` of LAB_ENV_FILE: it does not exist',
      exit: 2,
    })
  })

  test('is refused if it is a directory', async () => {
    vi.stubEnv('LAB_ENV_FILE', tmpdir())
    await expect(loadEnv()).rejects.toMatchObject({
      message: `Cannot read \`${tmpdir()}\`: it is a directory`,
      exit: 2,
    })
  })

  test.each(['utf16le', 'latin1'] as const)('in %s is refused', async (encoding) => {
    const text = Buffer.from('\uFEFFLAB_HOME=/\u00e9\n', encoding)
    const thrown = await load(text).catch((error: unknown) => error)
    expect(thrown).toMatchObject({
      message: expect.stringMatching(/^Cannot read `.*UTF-8$/),
      exit: 2,
    })
  })

  test.each([
    ['\nLAB_HOMES=/x\n', 'there is no setting `LAB_HOMES`', 'The nearest are LAB_HOME, '],
    ['#\nLAB_HOME="/x\nLAB_CPUS=2\n', '', 'LAB_HOME=…, with a quote at both ends'],
    ["#\nLAB_HOME='/x\n", '', 'LAB_HOME=…, with a quote at both ends'],
    ['#\nLAB_HOME=$HOME/x\n', 'is not expanded', 'Write a path'],
    ['#\nLAB_CACHE=/x/${MINE}\n', 'is not expanded', 'Write a path'],
    ['#\nLAB_HOME=~somebody/lab\n', '`~somebody` is not expanded', 'Write a path'],
    ['#\nlab_home=/x\n', 'there is no setting `lab_home`', 'LAB_HOME'],
    ['#\nLAB-HOME=/x\n', 'there is no setting `LAB-HOME`', 'LAB_HOME'],
    ['#\nset LAB_HOME=/x\n', '', 'LAB_HOME=…'],
    ['#\nLAB_HOME="/x\n"\n', '', 'LAB_HOME=…, with a quote at both ends'],
    ['#\nLAB_HOME=/x/c#/lab\n', 'a `#` in a value', 'LAB_HOME="…"'],
    ['#\n  export LAB_HOME = /my lab#1 # here\n', 'a `#` in a value', 'LAB_HOME="…"'],
    ['#\nLAB_HOME /x\n', '', 'LAB_HOME=…, with a quote at both ends'],
  ])('%j is refused, and its line is named', async (text, why, hint) => {
    const thrown = await load(text).catch((error: unknown) => error)
    expect(thrown).toBeInstanceOf(Failure)
    const { message, exit, detail } = thrown as Failure
    expect({ message, exit }).toEqual({
      message: expect.stringMatching(/^Cannot read line 2 of `[^`]*`/),
      exit: 2,
    })
    expect(message).toContain(why)
    expect(detail.hint).toContain(hint)
  })
})

import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { writeSshConfig, type SshConfigHost } from '../../../lib/ssh/config.ts'
import { keygen, makeSshd, noSshd, type Sshd } from './sshd.ts'

if (noSshd) console.warn(`SKIPPED: ssh with the written configuration: ${noSshd}`)

const dirs: string[] = []
const directory = (name: string): string => {
  const dir = mkdtempSync(join(tmpdir(), 'config-'))
  dirs.push(dir)
  const inner = join(dir, name)
  mkdirSync(inner)
  return inner
}
afterAll(() => {
  for (const dir of dirs) rmSync(dir, { recursive: true })
})

const odd = 'it\'s "odd" 100%d \\ %% $HOME #x = ü'
const host = (name: string, dir: string): SshConfigHost => ({
  name,
  port: 2222,
  user: 'rain',
  keyPath: join(dir, 'id'),
  hostKey:
    'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILabLabLabLabLabLabLabLabLabLabLabLabLabLabLabLab lab\n',
})

const effective = (path: string, alias: string): Map<string, string> => {
  const text = execFileSync('ssh', ['-F', path, '-G', alias], { encoding: 'utf8' })
  return new Map(
    text.split('\n').map((line) => line.split(/ (.*)/s).slice(0, 2) as [string, string]),
  )
}

test('has each host and its root, with only the pinned key', async () => {
  const dir = directory('plain')
  const path = join(dir, 'ssh_config')
  writeSshConfig(path, [host('sorrow', dir), { ...host('torment', dir), port: 2223 }])
  const sorrow = effective(path, 'sorrow')
  expect(Object.fromEntries(sorrow)).toMatchObject({
    hostname: '127.0.0.1',
    port: '2222',
    user: 'rain',
    hostkeyalias: 'sorrow',
    identityfile: join(dir, 'id'),
    identitiesonly: 'yes',
    identityagent: 'none',
    userknownhostsfile: join(dir, 'known_hosts'),
    globalknownhostsfile: '/dev/null',
    stricthostkeychecking: 'true',
  })
  expect(effective(path, 'sorrow-root').get('user')).toBe('root')
  expect(effective(path, 'torment').get('port')).toBe('2223')
  expect(effective(path, 'torment-root').get('hostkeyalias')).toBe('torment')
  expect(readFileSync(join(dir, 'known_hosts'), 'utf8')).toMatch(
    /^sorrow ssh-ed\S+ \S+.*\ntorment ssh/,
  )
})

test('is replaced completely, and only its owner can read it', async () => {
  const dir = directory('again')
  const path = join(dir, 'ssh_config')
  writeSshConfig(path, [host('sorrow', dir), host('torment', dir)])
  writeSshConfig(path, [host('torment', dir)])
  expect(readFileSync(path, 'utf8')).not.toContain('sorrow')
  expect(readFileSync(join(dir, 'known_hosts'), 'utf8')).not.toContain('sorrow')
  expect(readdirSync(dir).toSorted()).toEqual(['known_hosts', 'ssh_config'])
  expect(statSync(path).mode & 0o777).toBe(0o600)
})

test('is left unchanged if a path cannot be written in it', () => {
  const dir = directory('bad')
  const path = join(dir, 'ssh_config')
  writeSshConfig(path, [host('sorrow', dir)])
  const before = readFileSync(path, 'utf8')
  for (const name of ['${HOME}', 'line\nbreak']) {
    expect(() => writeSshConfig(path, [host('torment', join(dir, name))])).toThrow(
      'Cannot write an ssh_config: it has no way to spell the path',
    )
  }
  expect(readFileSync(path, 'utf8')).toBe(before)
})

describe.skipIf(noSshd)('ssh itself', () => {
  let server: Sshd
  let dir: string
  beforeAll(async () => {
    server = await makeSshd()
    await server.start()
    dir = directory(odd)
    copyFileSync(server.target.keyPath, join(dir, 'id'))
  })
  afterAll(() => server.stop())

  test('logs in with that file, even from a directory with special characters in its name', async () => {
    const path = join(dir, 'ssh_config')
    writeSshConfig(path, [{ ...server.target, name: 'sorrow', keyPath: join(dir, 'id') }])
    expect(execFileSync('ssh', ['-F', path, 'sorrow', 'echo in'], { encoding: 'utf8' })).toBe(
      'in\n',
    )
  })

  test('refuses another host key', async () => {
    const path = join(dir, 'ssh_config')
    keygen(join(server.dir, 'other'))
    const hostKey = readFileSync(join(server.dir, 'other.pub'), 'utf8')
    writeSshConfig(path, [{ ...server.target, name: 'sorrow', hostKey }])
    expect(() => execFileSync('ssh', ['-F', path, 'sorrow', 'echo in'], { stdio: 'pipe' })).toThrow(
      /Host key verification failed/,
    )
  })
})

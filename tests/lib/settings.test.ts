import { homedir } from 'node:os'
import { afterEach, expect, test, vi } from 'vitest'
import { bytes, labCache, labHome, runtimeDir, socketDir } from '../../lib/settings.ts'

afterEach(() => vi.unstubAllEnvs())

test.each([
  ['512M', 512 * 1024 ** 2],
  ['2G', 2 * 1024 ** 3],
  ['1.5GiB', 1.5 * 1024 ** 3],
  ['20GB', 20 * 1024 ** 3],
])('%s is a size', (text, expected) => {
  expect(bytes(text, 'memory')).toBe(expected)
})

test.each(['', '2', '-2G', '0G', '2 gigs', '2G; rm', 'NaNG', '1e3G'])('%j is no size', (text) => {
  expect(() => bytes(text, 'memory')).toThrow('as memory')
})

test('directories follow LAB_*, then XDG, then the home directory', () => {
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

test('sockets stay short and differ by LAB_HOME, however long that is', () => {
  vi.stubEnv('XDG_RUNTIME_DIR', `/tmp/${'r'.repeat(90)}`)
  vi.stubEnv('LAB_HOME', `/tmp/${'h'.repeat(200)}`)
  const one = runtimeDir()
  vi.stubEnv('LAB_HOME', `/tmp/${'h'.repeat(201)}`)
  expect(runtimeDir()).not.toBe(one)
  expect(`${socketDir('n'.repeat(63))}/console`.length).toBeLessThan(104)
  expect(socketDir('n'.repeat(63))).not.toBe(socketDir('n'.repeat(62)))
})

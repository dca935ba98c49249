import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { evaluationStore } from '../../../lib/nix/store.ts'
import { run } from '../../../lib/run.ts'

test('Several commands that open a new store at the same time all find it complete', async () => {
  const cache = mkdtempSync(join(tmpdir(), 'store-'))
  try {
    // a suite for which no image was built
    const options = { cache, suite: 'none' }
    const evaluate = async (): Promise<string> => {
      const args = ['eval', ...evaluationStore(options), '--expr', '1 + 1']
      const features = ['--extra-experimental-features', 'nix-command flakes']
      return (await run('nix', [...features, ...args])).stdout.trim()
    }
    const found = await Promise.all(Array.from({ length: 6 }, evaluate))
    expect(found).toEqual(Array(6).fill('2'))
    const state = join(cache, 'store/nix/var/nix')
    expect(readlinkSync(join(state, 'gcroots/profiles'))).toBe(join(state, 'profiles'))
  } finally {
    rmSync(cache, { recursive: true })
  }
})

test('A store that cannot be made is reported in one line, and no files are left', () => {
  const cache = mkdtempSync(join(tmpdir(), 'store-'))
  vi.stubEnv('PATH', cache)
  try {
    expect(() => evaluationStore({ cache, suite: 'none' })).toThrow('Cannot make a Nix store in')
    expect(readdirSync(cache)).toEqual([])
  } finally {
    vi.unstubAllEnvs()
    rmSync(cache, { recursive: true })
  }
})

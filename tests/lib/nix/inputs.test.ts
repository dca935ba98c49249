import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { fetchInputs, lockedInputs } from '../../../lib/nix/inputs.ts'
import { nix } from '../../../lib/nix/nix.ts'

test('direct and indirect inputs of a lock are fetched into a store, and found there by their hashes', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'inputs-'))
  onTestFinished(() => {
    execFileSync('chmod', ['-R', 'u+w', dir])
    rmSync(dir, { recursive: true })
  })
  const flake = (name: string, inputs: string): string => {
    const at = join(dir, name)
    mkdirSync(at)
    writeFileSync(join(at, 'flake.nix'), `{ ${inputs} outputs = _: { }; }\n`)
    for (const args of [
      ['init', '--quiet'],
      ['add', '.'],
      ['-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '--quiet', '-m', name],
    ])
      execFileSync('git', ['-C', at, ...args])
    return at
  }
  const inner = flake('inner', '')
  const outer = flake('outer', `inputs.inner.url = "git+file://${inner}";`)
  const whole = flake('whole', `inputs.outer.url = "git+file://${outer}";`)
  await nix(['flake', 'lock', '--store', join(dir, 'first'), whole])
  const lock = readFileSync(join(whole, 'flake.lock'), 'utf8')
  const store = ['--store', join(dir, 'store')]
  // the machine's own store is not used: a new machine has none yet
  writeFileSync(join(dir, 'none'), '')
  vi.stubEnv('NIX_REMOTE', join(dir, 'none/store'))
  onTestFinished(() => void vi.unstubAllEnvs())
  expect(await lockedInputs(lock, store)).toEqual([])
  await fetchInputs(`git+file://${whole}`, lock, store, () => {})
  const found = await lockedInputs(lock, store)
  expect(found.map(({ name }) => name)).toEqual(['inner', 'outer'])
  for (const { name, path } of found) {
    const text = readFileSync(join(dir, 'store', path, 'flake.nix'), 'utf8')
    expect(text).toBe(readFileSync(join(dir, name, 'flake.nix'), 'utf8'))
  }
  // all inputs are there, so nothing is fetched
  await fetchInputs('git+file:///nonexistent', lock, store, () => {})
})

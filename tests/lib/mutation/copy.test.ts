import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { makeCopy, read } from '../../../lib/mutation/copy.ts'
import { killWithin } from '../../../lib/process.ts'

let cache: string
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), 'cache-'))
  vi.stubEnv('LAB_CACHE', cache)
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(cache, { recursive: true })
})

/** A process such as a killed run leaves behind: it works in a directory and has no parent that waits for it. */
const left = (cwd: string) => {
  const child = spawn('sleep', ['60'], { cwd, stdio: 'ignore', detached: true })
  return { child, ended: once(child, 'exit') }
}

test('Processes that a killed run left in the copy are killed by the next run, before it makes a new copy', async () => {
  const tree = join(cache, 'mutation/copy')
  mkdirSync(join(tree, 'tests'), { recursive: true })
  const { ended } = left(join(tree, 'tests'))
  const copy = await makeCopy()
  expect((await ended)[1]).toBe('SIGKILL')
  expect(existsSync(join(tree, 'package.json'))).toBe(true)
  // and a process that this run leaves is killed at its end
  const own = left(tree)
  await copy.end()
  expect((await own.ended)[1]).toBe('SIGKILL')
  expect(existsSync(tree)).toBe(false)
})

test('Only processes in that directory are killed, not those in one whose name begins the same', async () => {
  mkdirSync(join(cache, 'copy'))
  mkdirSync(join(cache, 'copy-of-another'))
  const [here, beside] = [left(join(cache, 'copy')), left(join(cache, 'copy-of-another'))]
  expect(killWithin(join(cache, 'copy'))).toBe(1)
  expect((await here.ended)[1]).toBe('SIGKILL')
  expect(beside.child.exitCode ?? beside.child.signalCode).toBeNull()
  beside.child.kill()
  await beside.ended
})

test('A run is red only if a test failed or the setup failed', () => {
  const ran = (...testResults: Parameters<typeof read>[0]['testResults']) =>
    read({ testResults }, 'x.test.ts')
  const well = { fullName: 'one', status: 'passed' }
  const of = (status: string, message: string, ...assertionResults: (typeof well)[]) => {
    return { status, message, assertionResults }
  }
  expect(ran(of('passed', '', well)).state).toBe('green')
  expect(ran(of('failed', '', { ...well, status: 'failed' })).state).toBe('red')
  expect(ran(of('failed', 'no world'))).toMatchObject({
    state: 'red',
    found: 'x.test.ts: no world',
  })
  // as if no file had that name
  expect(() => ran()).toThrow('Cannot judge by `x.test.ts`')
})

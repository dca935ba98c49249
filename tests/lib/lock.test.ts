import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lock } from '../../lib/lock.ts'

let dir: string
let path: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lock-'))
  path = join(dir, 'lock')
})
afterEach(() => rmSync(dir, { recursive: true }))

/** Another process that holds the lock until it is killed. */
async function otherHolder() {
  const code = `import { lock } from ${JSON.stringify(join(import.meta.dirname, '../../lib/lock.ts'))}
await lock(process.argv[1], 'hold'); console.log('held'); setInterval(() => {}, 1000)`
  const argv = ['--import', 'tsx', '--input-type=module', '--eval', code, path]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

test('a second holder is refused at once, and the message names the first', async () => {
  const child = await otherHolder()
  await expect(lock(path, 'deploy `sorrow`')).rejects.toThrow(
    new RegExp(`Cannot deploy \`sorrow\`: .*\\(pid ${child.pid}\\) holds the lock`),
  )
  child.kill('SIGKILL')
  await once(child, 'exit')
})

test('a holder killed with SIGKILL leaves no lock behind', async () => {
  const child = await otherHolder()
  child.kill('SIGKILL')
  await once(child, 'exit')
  const held = await lock(path, 'deploy')
  held.release()
})

test('a released lock can be taken again', async () => {
  const first = await lock(path, 'deploy')
  await expect(lock(path, 'deploy')).rejects.toThrow('holds the lock')
  first.release()
  const second = await lock(path, 'deploy')
  second.release()
})

test('a waiter gets the lock when its holder dies', async () => {
  const child = await otherHolder()
  const said: string[] = []
  const waiting = lock(path, 'build', { wait: 30, say: (line) => said.push(line) })
  setTimeout(() => child.kill('SIGKILL'), 300)
  const held = await waiting
  held.release()
  expect(said[0]).toMatch(new RegExp(`^waiting for .*pid ${child.pid}.*: 0 s of at most 30 s$`))
  // the wait is over
  expect(said.at(-1)).toBe('')
})

test('waiting for a lock has a time limit', async () => {
  const child = await otherHolder()
  await expect(lock(path, 'build', { wait: 1 })).rejects.toThrow('Cannot build')
  child.kill('SIGKILL')
  await once(child, 'exit')
})

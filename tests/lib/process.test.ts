import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { afterEach, expect, test } from 'vitest'
import { alive, end, gone, identify, processesOf } from '../../lib/process.ts'

const uuid = randomUUID()
const started: ReturnType<typeof spawn>[] = []
afterEach(() => started.splice(0).forEach((child) => child.kill('SIGKILL')))

/** A process whose command line carries the UUID, as QEMU's does. */
async function marked(before = '') {
  const code = `${before}; console.log('up'); setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--eval', code, uuid], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  started.push(child)
  await once(child.stdout, 'data')
  return child
}

test('a process is identified by pid, start time, boot and UUID', async () => {
  const child = await marked()
  const identity = identify(child.pid!, uuid)!
  expect(identity).toMatchObject({ pid: child.pid, uuid })
  expect(alive(identity)).toBe(true)
})

test.each([
  ['start time', { start: 1 }],
  ['boot', { bootId: randomUUID() }],
  ['UUID', { uuid: randomUUID() }],
])(
  'a process whose recorded %s differs counts as another one, and is never signalled',
  async (_, other) => {
    const child = await marked()
    const reused = { ...identify(child.pid!, uuid)!, ...other }
    expect(alive(reused)).toBe(false)
    await end(reused, 1)
    expect(child.exitCode ?? child.signalCode).toBeNull()
    expect(identify(child.pid!, uuid)).toBeDefined()
  },
)

test('a process is found by its UUID alone', async () => {
  const child = await marked()
  expect(processesOf(uuid).map(({ pid }) => pid)).toEqual([child.pid])
  expect(processesOf(randomUUID())).toEqual([])
})

test('end kills a process that ignores SIGTERM', async () => {
  const child = await marked("process.on('SIGTERM', () => {})")
  const identity = identify(child.pid!, uuid)!
  await end(identity, 0.3)
  expect(alive(identity)).toBe(false)
})

test('gone returns false when its limit passes', async () => {
  const child = await marked()
  expect(await gone(identify(child.pid!, uuid)!, 0.1)).toBe(false)
  child.kill('SIGKILL')
  expect(await gone({ ...identify(process.pid, '')!, pid: child.pid!, uuid }, 2)).toBe(true)
})

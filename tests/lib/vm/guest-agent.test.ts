import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { guestAgent, reachable, type GuestAgent } from '../../../lib/vm/guest-agent.ts'
import { pause, waitFor } from '../../../lib/retry.ts'

const noAgent =
  spawnSync('qemu-ga', ['--version']).error && 'qemu-ga (qemu-guest-agent) is not installed'
if (noAgent) console.warn(`SKIPPED: the guest agent's protocol against a real one: ${noAgent}`)

async function failure(promise: Promise<unknown>): Promise<Failure> {
  const thrown = await promise.then(
    (value) => new Error(`resolved with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  )
  if (!(thrown instanceof Failure)) throw thrown
  return thrown
}

let dir: string
let path: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'qga-'))
  path = join(dir, 'qga.sock')
})
afterEach(() => {
  rmSync(dir, { recursive: true })
})

describe.skipIf(noAgent)('a guest agent', () => {
  let daemon: ChildProcess
  let agent: GuestAgent | undefined
  const start = async (): Promise<void> => {
    const argv = ['-m', 'unix-listen', '-p', path, '-t', dir, '-f', join(dir, 'pid')]
    daemon = spawn('qemu-ga', [...argv, '-l', join(dir, 'log')], { stdio: 'ignore' })
    // the socket exists a moment before qemu-ga listens on it
    await waitFor('qemu-ga to answer', 20, () => reachable(path, 5), { every: 0.02 })
  }
  const meet = async (): Promise<GuestAgent> => (agent = await guestAgent(path, { name: 'sorrow' }))
  afterEach(async () => {
    agent?.close()
    agent = undefined
    if (daemon.exitCode !== null || daemon.signalCode !== null) return
    daemon.kill('SIGKILL')
    await once(daemon, 'exit')
  })

  test('answers, and refuses an unknown command', async () => {
    await start()
    const { execute } = await meet()
    await execute('guest-ping')
    const info = await execute<{ version: string }>('guest-info')
    expect(info.version).toMatch(/^\d+\.\d+/)
    const thrown = await failure(execute('guest-brew'))
    expect(thrown.message).toBe(
      'The guest agent of `sorrow` refused `guest-brew`: The command guest-brew has not been found',
    )
  })

  test('runs a program with arguments and input, and returns stdout, stderr and exit code', async () => {
    await start()
    const { exec } = await meet()
    const ran = await exec('sh', ['-c', 'cat; echo "$1" >&2; exit 3', '-', 'a  b'], {
      input: 'é\n',
      allow: [3],
    })
    expect(ran).toEqual({ stdout: 'é\n', stderr: 'a  b\n', code: 3 })
    expect(await exec('true')).toEqual({ stdout: '', stderr: '', code: 0 })
    expect((await exec('cat', [])).stdout).toBe('')
    expect((await exec('false', [], { allow: 'any' })).code).toBe(1)
  })

  test('returns several MB of output completely', async () => {
    await start()
    const { exec } = await meet()
    const { stdout } = await exec('sh', ['-c', 'yes 0123456789 | head -c 6000000'])
    expect(stdout.length).toBe(6_000_000)
  })

  test('runs programs in parallel', async () => {
    await start()
    const { exec } = await meet()
    const all = await Promise.all(
      [3, 2, 1].map((n) => exec('sh', ['-c', `sleep 0.${n}; echo ${n}`])),
    )
    expect(all.map(({ stdout }) => stdout)).toEqual(['3\n', '2\n', '1\n'])
  })

  test('names a program that fails, is killed or does not exist', async () => {
    await start()
    const { exec } = await meet()
    const failed = await failure(exec('sh', ['-c', 'echo why >&2; exit 4']))
    expect(failed.message).toBe('`sh` exited with 4 (guest agent of `sorrow`)')
    expect(failed.detail.evidence).toBe('why')
    const killed = await failure(exec('sh', ['-c', 'kill -TERM $$'], { allow: 'any' }))
    expect(killed.message).toBe('`sh` was killed by SIGTERM (guest agent of `sorrow`)')
    expect((await failure(exec('no-such-program'))).message).toContain('refused `guest-exec`')
  })

  test('kills a program that exceeds its time limit', async () => {
    await start()
    const { exec } = await meet()
    const pid = join(dir, 'program')
    const thrown = await failure(
      exec('sh', ['-c', `echo $$ > ${pid}; exec sleep 60`], { timeout: 0.5 }),
    )
    expect(thrown.message).toContain('`sh` took longer than its limit of 0.5 s')
    const stillRuns = ['-c', `kill -0 $(cat ${pid})`]
    await waitFor('the program to be gone', 20, async () => {
      return (await exec('sh', stillRuns, { allow: 'any' })).code !== 0
    })
  })

  test('does not mistake the answer to an earlier client for its own', async () => {
    await start()
    const earlier = connect({ path })
    const asked =
      '{"execute":"guest-get-host-name","id":1}\n{"execute":"guest-info"}\n{"execute":"gu'
    await new Promise<void>((resolve) => earlier.write(asked, () => resolve()))
    await pause(0.2)
    const meeting = meet()
    await pause(0.2)
    earlier.destroy()
    const { exec } = await meeting
    expect((await exec('echo', ['mine'])).stdout).toBe('mine\n')
  })

  test('that is frozen is reported with the limit, and its late answer is dropped', async () => {
    await start()
    const { execute } = await meet()
    daemon.kill('SIGSTOP')
    const thrown = await failure(execute('guest-info', {}, 0.2))
    expect(thrown.message).toBe(
      'The guest agent of `sorrow` did not answer `guest-info` within 0.2 s',
    )
    daemon.kill('SIGCONT')
    await execute('guest-ping')
    expect(await execute('guest-get-host-name')).toHaveProperty('host-name')
  })

  test('that is killed fails the running and the later commands', async () => {
    await start()
    const { exec, execute } = await meet()
    const running = failure(exec('sh', ['-c', 'exec sleep 0.5']))
    await execute('guest-ping')
    daemon.kill('SIGKILL')
    expect((await running).message).toContain('The guest agent of `sorrow` is gone')
    expect((await failure(execute('guest-ping'))).message).toContain(
      'The guest agent of `sorrow` is gone',
    )
  })

  test('is reachable only while it answers', async () => {
    await start()
    expect(await reachable(path, 10)).toBe(true)
    daemon.kill('SIGSTOP')
    expect(await reachable(path, 0.3)).toBe(false)
    daemon.kill('SIGKILL')
    await once(daemon, 'exit')
    expect(await reachable(path, 10)).toBe(false)
  })
})

describe('a socket without an agent', () => {
  test('is reported with the limit, because QEMU accepts the connection all the same', async () => {
    const server = createServer((socket) => socket.on('error', () => {}).resume())
    await new Promise<void>((resolve) => server.listen(path, resolve))
    const thrown = await failure(guestAgent(path, { timeout: 0.3, name: 'sorrow' }))
    expect(thrown.message).toBe(
      'Waiting for the guest agent of `sorrow` took longer than its limit of 0.3 s',
    )
    expect(await reachable(path, 0.2)).toBe(false)
    await new Promise((resolve) => server.close(resolve))
  })

  test('an agent that starts late is used once it starts', async () => {
    let up = false
    const server = createServer((socket) => {
      socket
        .on('error', () => {})
        .on('data', (data) => {
          const [, id] = /"id":(\d+)\}\n$/.exec(data.toString()) ?? []
          if (up && id) socket.write(`half a line\xff{"return": 1, "id": ${id}}\n`, 'latin1')
        })
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    setTimeout(() => (up = true), 500)
    const agent = await guestAgent(path, { timeout: 30 })
    agent.close()
    await new Promise((resolve) => server.close(resolve))
  })

  test('that does not exist or has too long a path is a failure at once', async () => {
    const thrown = await failure(guestAgent(path, { timeout: 3600 }))
    expect(thrown.message).toContain(`Cannot connect to the guest agent at \`${path}\``)
    const long = await failure(guestAgent(join(dir, 'x'.repeat(90)), { timeout: 3600 }))
    expect(long.message).toContain('bytes')
  })
})

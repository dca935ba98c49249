import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { qmp, runJob, type Qmp, type QmpEvent } from '../../../lib/vm/qmp.ts'
import { waitFor } from '../../../lib/retry.ts'

const noQemu = spawnSync('qemu-system-x86_64', ['--version']).error && 'QEMU is not installed'
if (noQemu) console.warn(`SKIPPED: QMP against a real QEMU: ${noQemu}`)

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
  dir = mkdtempSync(join(tmpdir(), 'qmp-'))
  path = join(dir, 'qmp.sock')
})
afterEach(() => {
  rmSync(dir, { recursive: true })
})

describe.skipIf(noQemu)('a monitor', () => {
  let qemu: ChildProcess
  let client: Qmp
  let events: QmpEvent[]
  const start = async (...args: string[]): Promise<void> => {
    const bare = ['-nodefaults', '-display', 'none', '-S', '-machine']
    const argv = [...bare, ...(args.length > 0 ? args : ['none'])]
    qemu = spawn('qemu-system-x86_64', [...argv, '-qmp', `unix:${path},server=on,wait=off`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    // the socket exists a moment before QEMU listens on it
    events = []
    const told = (event: QmpEvent): unknown => events.push(event)
    client = await waitFor('QEMU to answer', 20, () => qmp(path, { told }), { every: 0.02 })
  }
  afterEach(async () => {
    client.close()
    if (qemu.exitCode === null && qemu.signalCode === null) {
      qemu.kill('SIGKILL')
      await once(qemu, 'exit')
    }
  })

  test('answers any number of simultaneous commands, each with its own result', async () => {
    await start()
    const [status, name, ...versions] = await Promise.all([
      client.execute<{ status: string }>('query-status'),
      client.execute<object>('query-name'),
      ...Array.from({ length: 50 }, () => client.execute<{ package: string }>('query-version')),
    ])
    expect(status.status).toBe('prelaunch')
    expect(name).toEqual({})
    expect(versions.every((version) => typeof version.package === 'string')).toBe(true)
  })

  test('reports a refusal with QEMU’s description', async () => {
    await start()
    const thrown = await failure(client.execute('set_link', { name: 'wan', up: false }))
    expect(thrown.message).toBe("QEMU refused `set_link`: Device 'wan' not found")
    const unknown = await failure(client.execute('brew-coffee'))
    expect(unknown.message).toMatch(/^QEMU refused `brew-coffee`: /)
  })

  test('passes events to a listener until it is removed, and all to one given at the start', async () => {
    await start()
    const seen: string[] = []
    const off = client.on(({ event }) => seen.push(event))
    await client.execute('cont')
    await waitFor('RESUME', 20, () => seen.length > 0, { every: 0.02 })
    off()
    await client.execute('stop')
    await client.execute('quit')
    await client.closed
    expect(seen).toEqual(['RESUME'])
    expect(events.slice(0, 2).map(({ event }) => event)).toEqual(['RESUME', 'STOP'])
  })

  test('succeeds in `quit`, and sends the SHUTDOWN event', async () => {
    await start()
    await client.execute('quit')
    await client.closed
    const shutdown = events.find(({ event }) => event === 'SHUTDOWN')
    expect(shutdown?.data?.['reason']).toBe('host-qmp-quit')
  })

  test('fails the running and the later commands when QEMU is killed', async () => {
    await start()
    // a stopped QEMU does not answer
    qemu.kill('SIGSTOP')
    const asked = failure(client.execute('query-status'))
    qemu.kill('SIGKILL')
    expect((await asked).message).toBe('QEMU ended before it answered `query-status`')
    await client.closed
    expect((await failure(client.execute('query-status'))).message).toContain('it has ended')
  })

  test('that does not answer is reported with the limit', async () => {
    await start()
    qemu.kill('SIGSTOP')
    const thrown = await failure(client.execute('query-status', {}, 0.2))
    expect(thrown.message).toBe('QEMU did not answer `query-status` within 0.2 s')
    qemu.kill('SIGCONT')
    // the late answer is not mistaken for the answer to another command
    expect(await client.execute('query-name')).toEqual({})
  })

  test('serves one client, and the next one is told so, or served once the first leaves', async () => {
    await start()
    const thrown = await failure(qmp(path, { timeout: 0.3 }))
    expect(thrown.message).toBe(`The QMP monitor at \`${path}\` did not greet within 0.3 s`)
    expect(thrown.detail.hint).toContain('one client at a time')
    const next = qmp(path, { timeout: 20 })
    client.close()
    client = await next
    expect(await client.execute('query-name')).toEqual({})
  })

  test('runs snapshot jobs, and reports their errors', async () => {
    const disk = join(dir, 'disk.qcow2')
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '64M'])
    const file = { driver: 'file', filename: disk }
    const blockdev = JSON.stringify({ driver: 'qcow2', 'node-name': 'disk0', file })
    await start('pc', '-m', '16M', '-accel', 'tcg', '-blockdev', blockdev)
    const snapshot = { tag: 'booted', devices: ['disk0'] }
    await runJob(client, 'snapshot-save', { ...snapshot, vmstate: 'disk0' }, 60)
    const images =
      await client.execute<{ image?: { snapshots?: { name: string }[] } }[]>(
        'query-named-block-nodes',
      )
    expect(images.flatMap(({ image }) => image?.snapshots ?? []).map(({ name }) => name)).toEqual([
      'booted',
    ])
    const again = await failure(
      runJob(client, 'snapshot-save', { ...snapshot, vmstate: 'disk0' }, 60),
    )
    expect(again.message).toContain('QEMU could not finish `snapshot-save`: ')
    expect(again.message).toContain('booted')
    await runJob(client, 'snapshot-load', { ...snapshot, vmstate: 'disk0' }, 60)
    await runJob(client, 'snapshot-delete', snapshot, 60)
    const gone = await failure(
      runJob(client, 'snapshot-load', { ...snapshot, vmstate: 'disk0' }, 60),
    )
    expect(gone.message).toContain('QEMU could not finish `snapshot-load`')
    const none = failure(runJob(client, 'snapshot-delete', { tag: 'x', devices: ['disk9'] }, 60))
    expect((await none).message).toContain('disk9')
    expect(await client.execute('query-jobs')).toEqual([])
  })

  test('fails a job at once when QEMU ends', async () => {
    await start()
    qemu.kill('SIGSTOP')
    const job = failure(runJob(client, 'snapshot-delete', { tag: 'x', devices: [] }, 3600))
    qemu.kill('SIGKILL')
    expect((await job).message).toBe('QEMU ended before it answered `snapshot-delete`')
  })
})

describe('an unusable monitor socket', () => {
  test('is reported with its reason: missing, no listener, not QMP, or too long a path', async () => {
    expect((await failure(qmp(path))).message).toBe(
      `Cannot connect to the QMP monitor at \`${path}\`: ` +
        'there is no such socket, so its QEMU does not run',
    )
    const long = join(dir, 'x'.repeat(104 - dir.length))
    const refused = await failure(qmp(long))
    expect(refused.message).toContain('the path has 105 bytes')
    expect(refused.detail.hint).toContain('XDG_RUNTIME_DIR')
    // 103 bytes are accepted, so the reason is another one
    expect((await failure(qmp(long.slice(0, 103)))).message).toContain('no such socket')

    const server = createServer((socket) => socket.on('error', () => {}).write('hello\n'))
    await new Promise<void>((resolve) => server.listen(path, resolve))
    expect((await failure(qmp(path))).message).toContain('it speaks no JSON')
    await new Promise((resolve) => server.close(resolve))
  })
})

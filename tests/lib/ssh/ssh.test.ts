import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect as dial, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { Failure } from '../../../lib/failure.ts'
import { pause, waitFor } from '../../../lib/retry.ts'
import {
  connect,
  OtherHostKey,
  waitForSsh,
  type Ssh,
  type SshTarget,
} from '../../../lib/ssh/ssh.ts'
import { freePort, keygen, makeSshd, noSshd, type Sshd } from './sshd.ts'

if (noSshd) console.warn(`SKIPPED: SSH against a real sshd: ${noSshd}`)

const open: Ssh[] = []
const login = async (target: SshTarget): Promise<Ssh> => {
  const ssh = await connect(target)
  open.push(ssh)
  return ssh
}

async function failure(promise: Promise<unknown>): Promise<Failure> {
  const thrown = await promise.then(
    (value) => new Error(`resolved with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  )
  if (!(thrown instanceof Failure)) throw thrown
  return thrown
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((ssh) => ssh.close()))
})

describe.skipIf(noSshd)('a command', () => {
  // fewer than sshd's default of 10, as a command that takes the place of another may be refused
  let server: Sshd
  let ssh: Ssh
  beforeAll(async () => {
    server = await makeSshd(['MaxSessions 8'])
    await server.start()
    server.target.name = 'sorrow'
  })
  afterAll(() => server.stop())
  const ready = async (): Promise<void> => {
    ssh = await login(server.target)
  }

  test('gives stdout, stderr and exit code, and text on stderr is not a failure', async () => {
    await ready()
    const ran = await ssh.exec('echo "  out "; echo err >&2; exit 3', { allow: [3] })
    expect(ran).toEqual({ stdout: '  out \n', stderr: 'err\n', code: 3 })
    expect(await ssh.exec('echo err >&2')).toEqual({ stdout: '', stderr: 'err\n', code: 0 })
    expect((await ssh.exec('exit 77', { allow: 'any' })).code).toBe(77)
  })

  test('an exit code that is not allowed is a failure with the last lines', async () => {
    await ready()
    const thrown = await failure(
      ssh.exec('seq 20 >&2; exit 4', { allow: [3], hint: 'look at the unit' }),
    )
    expect(thrown.message).toBe('Command `seq 20 >&2; exit 4` on `sorrow` exited with 4')
    expect(thrown.detail.evidence).toBe('13\n14\n15\n16\n17\n18\n19\n20')
    expect(thrown.detail.hint).toBe('look at the unit')
  })

  test('that a signal ended is a failure that names the signal', async () => {
    await ready()
    const thrown = await failure(ssh.exec('kill -TERM $$', { allow: 'any' }))
    expect(thrown.message).toContain('was killed by SIGTERM')
  })

  test('yields whole characters and lines, even if packets split them', async () => {
    await ready()
    const lines: string[] = []
    const ran = await ssh.exec(
      String.raw`printf 'caf\303'; sleep 0.3; printf '\251\nno'; sleep 0.3; printf ' end'`,
      { onLine: (line) => lines.push(line) },
    )
    expect(ran.stdout).toBe('café\nno end')
    expect(lines).toEqual(['café', 'no end'])
  })

  test('delivers lines while it runs', async () => {
    await ready()
    const told = new Promise<string>((resolve) => {
      void failure(ssh.exec('echo first >&2; sleep 60', { onLine: resolve }))
    })
    expect(await told).toBe('first')
  })

  test('throws an error of the line callback, and the connection stays usable', async () => {
    await ready()
    const onLine = vi.fn<() => void>().mockImplementation(() => {
      throw new TypeError('a bug')
    })
    await expect(ssh.exec('echo x', { onLine })).rejects.toThrow(TypeError)
    expect((await ssh.exec('echo still')).stdout).toBe('still\n')
  })

  test('gets input of several MB byte for byte, and none without an input', async () => {
    await ready()
    const input = Buffer.alloc(8_000_000, Buffer.from([0, 255, 10, 195]))
    const sum = createHash('sha256').update(input).digest('hex')
    expect((await ssh.exec('sha256sum', { input })).stdout.slice(0, 64)).toBe(sum)
    expect((await ssh.exec('cat', { input: 'é' })).stdout).toBe('é')
    expect((await ssh.exec('cat', { input: '' })).stdout).toBe('')
    expect((await ssh.exec('cat')).stdout).toBe('')
  })

  test('that does not read its input still ends', async () => {
    await ready()
    const input = Buffer.alloc(8_000_000)
    expect((await ssh.exec('exit 5', { input, allow: [5] })).code).toBe(5)
    expect((await ssh.exec('echo still')).stdout).toBe('still\n')
  })

  test('gives output of several MB on both streams completely', async () => {
    await ready()
    const ran = await ssh.exec(
      `yes 0123456789 | head -c 6000000 >&2 & yes abcdefghi | head -c 6000000; wait`,
    )
    expect(ran.stdout.length).toBe(6_000_000)
    expect(ran.stderr.length).toBe(6_000_000)
  })

  test('waits in a queue if 24 are started at once, as sshd limits the sessions', async () => {
    await ready()
    const all = Array.from({ length: 24 }, (_, n) => ssh.exec(`sleep 0.1; echo ${n}`))
    const out = (await Promise.all(all)).map(({ stdout }) => Number(stdout))
    expect(out).toEqual(Array.from({ length: 24 }, (_, n) => n))
  })

  test('that is aborted in the queue does not use up another one’s turn', async () => {
    await ready()
    const blockers = Array.from({ length: 8 }, () => ssh.exec('sleep 0.5'))
    const abort = new AbortController()
    const gone = new Failure('no longer wanted')
    const queued = failure(ssh.exec('echo queued', { signal: abort.signal }))
    const next = ssh.exec('echo next')
    abort.abort(gone)
    expect(await queued).toBe(gone)
    await Promise.all(blockers)
    expect((await next).stdout).toBe('next\n')
    const after = await Promise.all(Array.from({ length: 9 }, () => ssh.exec('echo 1')))
    expect(after.length).toBe(9)
  })

  test('is ended by its time limit with a message, and the connection stays usable', async () => {
    await ready()
    const thrown = await failure(ssh.exec('echo begun; exec sleep 60', { timeout: 3 }))
    expect(thrown.message).toBe(
      'Command `echo begun; exec sleep 60` on `sorrow` took longer than its limit of 3 s',
    )
    expect(thrown.detail.evidence).toBe('begun')
    expect((await ssh.exec('echo still')).stdout).toBe('still\n')
  })

  test('is ended by its signal with the signal’s reason, even if aborted beforehand', async () => {
    await ready()
    const gone = new Failure('QEMU ended')
    const abort = new AbortController()
    const running = failure(ssh.exec('sleep 60', { signal: abort.signal }))
    setTimeout(() => abort.abort(gone), 100)
    expect(await running).toBe(gone)
    expect(await failure(ssh.exec('true', { signal: AbortSignal.abort(gone) }))).toBe(gone)
  })

  test('is quoted in messages by its first line only', async () => {
    await ready()
    const thrown = await failure(ssh.exec(`\nset -e; ${'x'.repeat(200)}\nmore`))
    expect(thrown.message).toMatch(/^Command `set -e; x{92}…` on `sorrow` exited with 127$/)
  })
})

/** Starts more commands than may run at once, and waits until the running ones have reported. */
const busy = async (ssh: Ssh): Promise<{ all: Promise<Failure>[]; begun: () => number }> => {
  let begun = 0
  const onLine = (): void => void (begun += 1)
  const all = Array.from({ length: 12 }, () =>
    failure(ssh.exec('echo begun; sleep 60', { onLine })),
  )
  await waitFor('8 commands to run', 20, () => begun >= 8, { every: 0.02 })
  return { all, begun: () => begun }
}

describe.skipIf(noSshd)('a connection', () => {
  let server: Sshd
  afterEach(() => server.stop())
  const started = async (...settings: string[]): Promise<Sshd> => {
    server = await makeSshd(settings)
    await server.start()
    return server
  }

  test('that is lost fails the running, queued and later commands at once', async () => {
    const { target, signal } = await started()
    const ssh = await login({ ...target, name: 'sorrow' })
    const { all } = await busy(ssh)
    signal('SIGKILL')
    const messages = new Set((await Promise.all(all)).map(({ message }) => message))
    expect([...messages]).toEqual([
      expect.stringMatching(
        /^Command `echo begun; sleep 60` on `sorrow` was cut off: the (other side closed the )?connection/,
      ),
    ])
    await ssh.closed
    expect((await failure(ssh.exec('true'))).message).toContain('was cut off')
    await ssh.close()
  })

  test('to a frozen server counts as dead after its keepalive', async () => {
    const { target, signal } = await started('MaxSessions 100')
    const ssh = await login({ ...target, keepalive: 4 })
    const { all, begun } = await busy(ssh)
    // a connection that is silent for longer, but alive, is not given up
    await pause(5)
    expect(begun()).toBe(8)
    signal('SIGSTOP')
    for (const thrown of await Promise.all(all)) {
      expect(thrown.message).toContain('was cut off: no sign of life for 4 s')
    }
    await ssh.closed
  })

  test('that freezes while it is being closed is still closed', async () => {
    const { target, signal } = await started()
    const ssh = await login(target)
    const { all } = await busy(ssh)
    signal('SIGSTOP')
    await ssh.close()
    for (const thrown of await Promise.all(all)) {
      expect(thrown.message).toContain('was cut off: the lab closed the connection')
    }
  })

  test('that is cut between two commands fails the next one with that reason', async () => {
    const { target, signal } = await started()
    const ssh = await login(target)
    await ssh.exec('true')
    signal('SIGKILL')
    await ssh.closed
    const thrown = await failure(ssh.exec('true'))
    expect(thrown.message).toContain('was cut off: the other side closed the connection')
  })
})

describe.skipIf(noSshd)('a login', () => {
  let server: Sshd
  beforeAll(async () => {
    server = await makeSshd()
    await server.start()
  })
  afterAll(() => server.stop())

  test('is refused when the host key is not the pinned one', async () => {
    keygen(join(server.dir, 'other'))
    const hostKey = readFileSync(join(server.dir, 'other.pub'), 'utf8')
    const thrown = await failure(connect({ ...server.target, name: 'sorrow', hostKey }))
    const { port } = server.target
    expect(thrown).toBeInstanceOf(OtherHostKey)
    expect(thrown.message).toBe(
      `Cannot connect to \`sorrow\`: the host key on 127.0.0.1:${port} is not the pinned one`,
    )
    expect(thrown.detail.hint).toContain(`port ${port}`)
  })

  test('is refused when the host has no key of the pinned kind', async () => {
    const rsa = await makeSshd([], 'rsa')
    try {
      await rsa.start()
      const thrown = await failure(connect({ ...rsa.target, hostKey: server.target.hostKey }))
      expect(thrown).toBeInstanceOf(OtherHostKey)
      expect((await (await login(rsa.target)).exec('echo rsa')).stdout).toBe('rsa\n')
    } finally {
      await rsa.stop()
    }
  })

  test('uses the pinned key even if the host has preferred ones', async () => {
    const path = join(server.dir, 'ecdsa')
    keygen(path, 'ecdsa')
    const two = await makeSshd([`HostKey ${path}`])
    try {
      await two.start()
      const hostKey = readFileSync(`${path}.pub`, 'utf8')
      const ssh = await login({ ...two.target, hostKey })
      expect((await ssh.exec('echo in')).stdout).toBe('in\n')
    } finally {
      await two.stop()
    }
  })

  test('names the key and the user when the key is refused', async () => {
    const keyPath = join(server.dir, 'stranger')
    keygen(keyPath)
    const thrown = await failure(connect({ ...server.target, keyPath }))
    expect(thrown.message).toContain(
      `: key \`${keyPath}\` is refused for user \`${server.target.user}\``,
    )
  })

  test('names a private key that is missing or unreadable, and a pinned key that is invalid', async () => {
    const missing = await failure(connect({ ...server.target, keyPath: '/nowhere/id' }))
    expect(missing.message).toContain('its private key cannot be read: ENOENT')
    const keyPath = join(server.dir, 'garbage')
    writeFileSync(keyPath, 'not a key')
    const garbage = await failure(connect({ ...server.target, keyPath }))
    expect(garbage.message).toContain('Cannot parse privateKey')
    for (const hostKey of ['', 'ssh-ed25519', 'ssh-ed25519 AAAA', 'ssh-rsa AAAAC3NzaC1lZDI1NTE5']) {
      const pinned = await failure(connect({ ...server.target, hostKey }))
      expect(pinned.message).toContain('its pinned host key is not a public key')
    }
  })

  test('says whether nothing listens, the other side hangs up, or stays silent', async () => {
    const port = await freePort()
    const target = { ...server.target, port, connectTimeout: 0.5 }
    const refused = await failure(connect(target))
    expect(refused.message).toContain(`: nothing listens on 127.0.0.1:${port}`)
    const closing = await tcpServer(port, (socket) => socket.end())
    expect((await failure(connect(target))).message).toContain('closed the connection before')
    await closing.stop()
    const resetting = await tcpServer(port, (socket) => socket.resetAndDestroy())
    expect((await failure(connect(target))).message).toContain('closed the connection before')
    await resetting.stop()
    const silent = await tcpServer(port, () => {})
    expect((await failure(connect(target))).message).toContain('no login within 0.5 s')
    await silent.stop()
    const babble = await tcpServer(port, (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    expect((await failure(connect(target))).message).toContain(`Cannot connect to`)
    await babble.stop()
  })
})

describe.skipIf(noSshd)('waiting for SSH', () => {
  let server: Sshd
  let front: TcpServer | undefined
  beforeAll(async () => {
    server = await makeSshd()
  })
  afterEach(async () => {
    await front?.stop()
    front = undefined
  })
  afterAll(() => server.stop())
  const wait = async (options: Partial<Parameters<typeof waitForSsh>[0]>): Promise<Ssh> => {
    const ssh = await waitForSsh({ ...server.target, name: 'sorrow', limit: 30, ...options })
    open.push(ssh)
    return ssh
  }
  /** Accepts at once, as QEMU's user network does; `onward` decides what happens to a connection. */
  const inFront = async (
    onward: (nth: number, socket: Socket, pass: () => void) => void,
  ): Promise<{ port: number; count: () => number }> => {
    let count = 0
    front = await tcpServer(await freePort(), (socket) => {
      const pass = (): void => {
        const back = dial({ port: server.target.port, host: '127.0.0.1' })
        back.on('error', () => socket.destroy()).on('close', () => socket.destroy())
        socket.on('close', () => back.destroy())
        socket.pipe(back).pipe(socket)
      }
      onward((count += 1), socket, pass)
    })
    return { port: front.port, count: () => count }
  }

  test('states what it waited for and the last reason when its limit passes', async () => {
    const thrown = await failure(wait({ limit: 1, evidence: () => 'the last serial lines' }))
    expect(thrown.message).toBe(
      'Waiting for `sorrow` to answer on SSH took longer than its limit of 1 s: ' +
        `Cannot connect to \`sorrow\`: nothing listens on 127.0.0.1:${server.target.port}`,
    )
    expect(thrown.detail.evidence).toBe('the last serial lines')
  })

  test('returns the connection once sshd is up', async () => {
    const waiting = wait({})
    await pause(0.7)
    await server.start()
    expect((await (await waiting).exec('echo up')).stdout).toBe('up\n')
  })

  test('a login that sshd hangs up on, as under too many connections, is retried', async () => {
    const { port, count } = await inFront((nth, socket, pass) => {
      if (nth > 2) pass()
      else socket.end()
    })
    const ssh = await connect({ ...server.target, port })
    open.push(ssh)
    expect((await ssh.exec('echo in')).stdout).toBe('in\n')
    expect(count()).toBe(3)
  })

  test('a login that sshd hangs up on is retried only until its limit, or until the cause is known', async () => {
    const { port, count } = await inFront((_, socket) => socket.end())
    const thrown = await failure(connect({ ...server.target, port, connectTimeout: 2.5 }))
    expect(thrown.message).toContain('closed the connection before the login')
    expect(count()).toBe(3)
    const dead = new Failure('its kernel is dead')
    const known = await failure(connect({ ...server.target, port, blame: () => dead }))
    expect([known, count()]).toEqual([dead, 4])
  })

  test('retries at most every 0.4 s while the guest refuses', async () => {
    const { port, count } = await inFront((_, socket) => socket.resetAndDestroy())
    const thrown = await failure(wait({ port, limit: 2 }))
    expect(thrown.message).toContain('closed the connection before the login')
    // the first attempt at 0 s, the others 0.4 s apart
    expect(count()).toBeGreaterThan(1)
    expect(count()).toBeLessThanOrEqual(6)
  })

  test('keeps a silent connection, and uses it if the banner comes late', async () => {
    const { port, count } = await inFront((nth, _, pass) => {
      if (nth === 1) setTimeout(pass, 700)
    })
    const ssh = await wait({ port, silence: 10 })
    expect((await ssh.exec('echo late')).stdout).toBe('late\n')
    expect(count()).toBe(1)
  })

  test('opens another connection beside a silent one, and drops the silent one', async () => {
    const dropped: number[] = []
    const { port, count } = await inFront((nth, socket, pass) => {
      socket.on('close', () => dropped.push(nth))
      if (nth === 3) pass()
    })
    await wait({ port, silence: 0.2 })
    expect(count()).toBe(3)
    await waitFor('the silent ones to be dropped', 20, () => dropped.length === 2)
    expect(dropped.toSorted((a, b) => a - b)).toEqual([1, 2])
  })

  test('a wake starts a try at once, beside a silent connection', async () => {
    let up = false
    let poke!: () => void
    const { port, count } = await inFront((_n, _s, pass) => {
      if (up) pass()
    })
    const wake = (call: () => void) => {
      poke = call
      return () => {}
    }
    const waiting = wait({ port, silence: 3600, wake })
    await pause(2.5)
    expect(count()).toBe(1)
    up = true
    poke()
    await waiting
    expect(count()).toBe(2)
  })

  test('the first try can be delayed until the first wake', async () => {
    let poke!: () => void
    const { port, count } = await inFront((_n, _s, pass) => pass())
    const wake = (call: () => void) => {
      poke = call
      return () => {}
    }
    const waiting = wait({ port, hold: 3600, wake })
    await pause(1)
    expect(count()).toBe(0)
    poke()
    await waiting
    expect(count()).toBe(1)
  })

  test('many wakes do not make it poll faster', async () => {
    const { port, count } = await inFront(() => {})
    await failure(wait({ port, limit: 2, wake: storm }))
    expect(count()).toBeLessThanOrEqual(6)
  })

  test('ends at once if a server with another host key answers', async () => {
    keygen(join(server.dir, 'another'))
    const hostKey = readFileSync(join(server.dir, 'another.pub'), 'utf8')
    expect(await failure(wait({ hostKey, limit: 3600 }))).toBeInstanceOf(OtherHostKey)
  })

  test('waits until the given command succeeds', async () => {
    const flag = join(server.dir, 'flag')
    const waiting = wait({ until: `test -e ${flag}` })
    await pause(0.5)
    writeFileSync(flag, '')
    await waiting
    const warned: Error[] = []
    const warn = (warning: Error): number => warned.push(warning)
    process.on('warning', warn)
    onTestFinished(() => void process.off('warning', warn))
    const never = wait({ until: 'echo why >&2; false', limit: 4, every: 0.1 })
    expect((await failure(never)).message).toMatch(
      /limit of 4 s: Command `echo why >&2; false` on `sorrow` exited with 1$/,
    )
    // no warning about leaked listeners, as if each of many tries left one
    expect(warned).toEqual([])
  })

  test('its limit also ends a hanging login or command, and no connection is left', async () => {
    let connections = 0
    const { port } = await inFront((_, socket, pass) => {
      connections += 1
      socket.on('close', () => (connections -= 1))
      pass()
    })
    const hung = await failure(wait({ port, until: 'sleep 60', limit: 1 }))
    expect(hung.message).toContain('took longer than its limit of 1 s')
    await front?.stop()
    front = await tcpServer(port, (socket) => {
      connections += 1
      socket.on('close', () => (connections -= 1))
      socket.write('SSH-2.0-OpenSSH_10.0\r\n')
    })
    const mute = await failure(wait({ port, limit: 1 }))
    expect(mute.message).toContain('took longer than its limit of 1 s')
    await waitFor('all connections to be closed', 20, () => connections === 0)
  })

  test('its signal ends it with the signal’s reason', async () => {
    const { port } = await inFront(() => {})
    const gone = new Failure('QEMU ended')
    const abort = new AbortController()
    const waiting = failure(wait({ port, signal: abort.signal }))
    setTimeout(() => abort.abort(gone), 100)
    expect(await waiting).toBe(gone)
  })
})

const storm = (poke: () => void): (() => void) => {
  const timer = setInterval(poke, 5)
  return () => clearInterval(timer)
}

interface TcpServer {
  port: number
  stop: () => Promise<void>
}

function tcpServer(port: number, onConnection: (socket: Socket) => void): Promise<TcpServer> {
  const sockets = new Set<Socket>()
  const server: Server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    socket.resume()
    onConnection(socket)
  })
  const stop = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
  return new Promise((resolve) => server.listen(port, '127.0.0.1', () => resolve({ port, stop })))
}

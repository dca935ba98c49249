import { readFile } from 'node:fs/promises'
import { connect as dial, type Socket } from 'node:net'
import type { NodeSSH } from 'node-ssh'
import type { AuthenticationType, AuthHandlerMiddleware, ServerHostKeyAlgorithm } from 'ssh2'
import { deferred } from '../deferred.ts'
import { Failure } from '../failure.ts'
import { pause, waitFor, type Blame, type WaitOptions } from '../retry.ts'
import { commands, type Exec } from './commands.ts'

export interface SshTarget {
  /** Its name in messages. Default `user@host:port`. */
  name?: string
  /** Default 127.0.0.1. */
  host?: string
  port: number
  user: string
  /** Path of the private key; no other key, agent or password is tried. */
  keyPath: string
  /** The pinned host key as a public key line: `ssh-ed25519 AAAA…`. */
  hostKey: string
  /** Seconds from dialling to the end of the login. Default 30. */
  connectTimeout?: number
  /** Seconds of silence after which the other side counts as dead. Default 30. */
  keepalive?: number
  /** Called with the methods that sshd offers to this user before any key is shown; costs a round trip. */
  onMethods?: (methods: string[]) => void
  /** Asked for the reason when there is no answer. */
  blame?: Blame
}

export interface Ssh {
  /**
   * Runs one command and waits for it; at most 8 run at once, the others queue. A command that
   * passes its limit (seconds from its start, default 120) is sent SIGKILL. OpenSSH before 9.8
   * ignores that signal in a login as root, so the command may live on.
   * @throws Failure naming the command and its exit code or signal, or why the connection was lost
   */
  exec: Exec
  /** Resolves when the connection is gone, for whatever reason. */
  closed: Promise<void>
  /** Closes the connection; commands that still run fail. */
  close: () => Promise<void>
}

/** A machine other than the expected one answers. */
export class OtherHostKey extends Failure {}

/** The other side closed the connection before the login. */
class HungUp extends Failure {}

/** Seconds for which `connect` retries: OpenSSH from 9.8 on refuses a client for 15 s after too many failed logins. */
const hangUpLimit = 20

/**
 * Logs in over SSH. Retries each second when sshd hangs up before the login, because it may be restarting, overloaded,
 * or refusing this client after too many connections.
 * @throws Failure with the reason: refused, closed, silent, another host key, key refused
 */
export async function connect(target: SshTarget): Promise<Ssh> {
  const prepared = await prepare(target)
  const until = now() + Math.min(target.connectTimeout ?? 30, hangUpLimit)
  for (;;) {
    try {
      return await login(knock(target), target, prepared)
    } catch (thrown) {
      const blame = isOtherHostKey(thrown) ? undefined : target.blame
      const found = blame?.(`Connecting to ${label(target)}`)
      if (found || !(thrown instanceof HungUp) || now() + 1 > until) throw found ?? thrown
      await pause(1)
    }
  }
}

/** Runs `work` over a new connection and closes that afterwards. */
export async function connected<T>(target: SshTarget, work: (ssh: Ssh) => Promise<T>): Promise<T> {
  const ssh = await connect(target)
  try {
    return await work(ssh)
  } finally {
    await ssh.close()
  }
}

export interface WaitForSshOptions
  extends
    SshTarget,
    Pick<WaitOptions, 'every' | 'signal' | 'wake' | 'evidence' | 'say' | 'as' | 'hint'> {
  /** Seconds for the whole wait. */
  limit: number
  /** The command that has to succeed. Default `true`. */
  until?: string
  /** Seconds of silence on a connection before another is tried beside it. Default 2, 5 with `wake`. */
  silence?: number
  /** Seconds that the first try waits for a first wake, for a guest that has just started. Default 0. */
  hold?: number
}

/**
 * Waits until a command works over SSH and returns the connection that it worked on. By default it
 * tries every 0.4 s: polling faster takes an emulated guest's CPU.
 *
 * QEMU's user network accepts a connection before the guest has a network, and keeps repeating its
 * SYN into the guest even after we have hung up. Each such connection costs the guest an sshd once it
 * is up (measured: 30 tries during a boot became 30 connections after it). So only a few silent
 * connections are opened, they are kept, and the first one that sends a banner is used. A `wake`, such
 * as a line of the serial log, triggers a try at once; `hold` delays the first try until then.
 * @throws Failure with the last reason when the limit passes; OtherHostKey at once
 */
export async function waitForSsh(options: WaitForSshOptions): Promise<Ssh> {
  const { limit, until = 'true', every = 0.4, signal, wake } = options
  const prepared = await prepare(options)
  const from = now()
  const silent = new Map<Socket, Promise<Socket>>()
  const patience = options.silence ?? (wake ? 5 : 2)
  let knocked = 0
  let stopListening: (() => void) | undefined
  let holding: (() => void) | undefined
  let hold = options.hold ?? 0

  const probe = async (over: AbortSignal): Promise<Ssh> => {
    if (hold > 0) await pause(hold, (stop) => (holding = stop))
    hold = 0
    knocked = now()
    const socket = knock(options)
    const speaking = banner(socket, options).finally(() => silent.delete(socket))
    silent.set(socket, speaking)
    const listening = pause(patience, (stop) => (stopListening = stop))
    const first = await Promise.race([...silent.values(), listening]).finally(stopListening)
    if (!first) throw cannotConnect(options, 'no SSH banner came')
    hangUp(silent)
    const drop = (): void => void first.destroy()
    over.addEventListener('abort', drop)
    const left = Math.max(1, limit - (now() - from))
    const connectTimeout = Math.min(options.connectTimeout ?? 30, left)
    try {
      const ssh = await login(first, { ...options, connectTimeout }, prepared)
      await ssh.exec(until, { timeout: left, signal }).catch(async (thrown: unknown) => {
        await ssh.close()
        throw thrown
      })
      return ssh
    } finally {
      over.removeEventListener('abort', drop)
    }
  }
  const onWake = (poke: () => void): void => {
    holding?.()
    // an emulated guest takes a second to answer, and a second connection would cost it another
    if (now() - knocked < 2 || silent.size >= 3) return
    stopListening?.()
    poke()
  }
  return waitFor(`${label(options)} to answer on SSH`, limit, probe, {
    ...options,
    every,
    final: isOtherHostKey,
    wake: wake && ((poke) => wake(() => onWake(poke))),
  }).finally(() => hangUp(silent))
}

const now = (): number => performance.now() / 1000

const isOtherHostKey = (thrown: unknown): boolean => thrown instanceof OtherHostKey

function hangUp(sockets: Map<Socket, unknown>): void {
  for (const socket of sockets.keys()) socket.destroy()
  sockets.clear()
}

/** Tries only the key; with `onMethods` it tries `none` first, as sshd answers that with its methods. */
function authentication(
  target: SshTarget,
  key: string,
): AuthenticationType[] | AuthHandlerMiddleware {
  const { onMethods, user: username } = target
  if (!onMethods) return ['publickey']
  let told = false
  return (methods, _partial, next) => {
    if (!methods) return next({ type: 'none', username })
    if (told) return next(false as never)
    told = true
    onMethods(methods)
    next({ type: 'publickey', username, key })
  }
}

interface Prepared {
  ssh: typeof NodeSSH
  privateKey: string
  /** The pinned key in its wire format, and the signature algorithms that fit it. */
  pinned: { key: Buffer; algorithms: ServerHostKeyAlgorithm[] }
}

/** Does all that can fail before a socket is opened: an await while it has no listeners could miss its events. */
async function prepare(target: SshTarget): Promise<Prepared> {
  const [, type, base64] = /^\s*([\w@.-]+)\s+([A-Za-z0-9+/]+=*)/.exec(target.hostKey) ?? []
  const key = Buffer.from(base64 ?? '', 'base64')
  if (!type || key.subarray(4, 4 + type.length).toString() !== type) {
    throw new Failure(`Cannot connect to ${label(target)}: its pinned host key is not a public key`)
  }
  const proofs = type === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256'] : [type]
  const algorithms = proofs as ServerHostKeyAlgorithm[]
  const privateKey = await readFile(target.keyPath, 'utf8').catch((error: Error) => {
    throw cannotConnect(target, `its private key cannot be read: ${error.message}`)
  })
  const { NodeSSH } = await import('node-ssh')
  return { ssh: NodeSSH, privateKey, pinned: { key, algorithms } }
}

const knock = (target: SshTarget): Socket =>
  dial({ host: target.host ?? '127.0.0.1', port: target.port, noDelay: true })

/** Resolves when the first bytes can be read; rejects when the socket closes before. */
function banner(socket: Socket, target: SshTarget): Promise<Socket> {
  const { promise, resolve, reject } = deferred<Socket>()
  socket.once('data', (chunk) => {
    socket.pause().unshift(chunk)
    resolve(socket)
  })
  socket.once('error', (error) => reject(noLogin(target, error)))
  socket.once('close', () => reject(noLogin(target)))
  return promise
}

async function login(socket: Socket, target: SshTarget, prepared: Prepared): Promise<Ssh> {
  const { connectTimeout = 30, keepalive = 30 } = target
  const { key, algorithms } = prepared.pinned
  const ssh = new prepared.ssh()
  const { exec, cutOff } = commands(ssh, label(target), target.blame)
  const refused = deferred<never>()
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  let phase: 'login' | 'open' | 'closing' = 'login'
  let otherKey = false

  // handles every end of the connection: node-ssh alone would resolve a command whose server was
  // killed, and turn a missed keepalive into an uncaught exception
  const end = (error?: SshError): void => {
    if (phase === 'login') {
      const other = otherKey || error?.message.includes('no matching host key format')
      refused.reject(other ? isOther(target) : noLogin(target, error))
    }
    cutOff(phase === 'closing' ? 'the lab closed the connection' : whyLost(error, keepalive))
    socket.destroy()
  }
  socket.once('close', () => end())
  const ready = ssh.connect({
    sock: socket,
    username: target.user,
    privateKey: prepared.privateKey,
    authHandler: authentication(target, prepared.privateKey),
    algorithms: { serverHostKey: algorithms },
    hostVerifier: (offered: Buffer) => !(otherKey = !offered.equals(key)),
    readyTimeout: connectTimeout * 1000,
    keepaliveInterval: (keepalive * 1000) / 3,
    keepaliveCountMax: 2,
  })
  ssh.connection?.on('error', end)
  const failed = ready.catch((error: SshError) => {
    end(error)
    return refused.promise
  })
  await Promise.race([failed, refused.promise])
  phase = 'open'

  const close = async (): Promise<void> => {
    phase = 'closing'
    ssh.dispose()
    const timer = setTimeout(() => socket.destroy(), 1000)
    await closed
    clearTimeout(timer)
  }
  return { exec, closed, close }
}

type SshError = Error & { code?: string | number | null; level?: string }

const label = (target: SshTarget): string =>
  target.name ? `\`${target.name}\`` : `\`${target.user}@${address(target)}\``

const address = (target: SshTarget): string => `${target.host ?? '127.0.0.1'}:${target.port}`

const cannotConnect = (target: SshTarget, why: string, Kind = Failure): Failure =>
  new Kind(`Cannot connect to ${label(target)}: ${why}`)

const isOther = (target: SshTarget): Failure =>
  new OtherHostKey(
    `Cannot connect to ${label(target)}: the host key on ${address(target)} is not the pinned one`,
    { hint: `Something else answers there: see what listens on port ${target.port}` },
  )

const hangUps = ['ECONNRESET', 'EPIPE']

/** Explains why a login failed. @param error undefined where the connection was closed without one */
function noLogin(target: SshTarget, error?: SshError): Failure {
  const { connectTimeout = 30 } = target
  if (error?.code === 'ECONNREFUSED') {
    return cannotConnect(target, `nothing listens on ${address(target)}`)
  }
  if (error?.level === 'client-timeout') {
    return cannotConnect(target, `no login within ${connectTimeout} s`)
  }
  if (error?.level === 'client-authentication') {
    return cannotConnect(target, `key \`${target.keyPath}\` is refused for user \`${target.user}\``)
  }
  const closings = [...hangUps, 'ETIMEDOUT', 'Connection lost before handshake']
  if (!error || closings.includes(String(error.code ?? error.message))) {
    return cannotConnect(
      target,
      `${address(target)} closed the connection before the login`,
      HungUp,
    )
  }
  return cannotConnect(target, error.message)
}

function whyLost(error: SshError | undefined, keepalive: number): string {
  if (error?.level === 'client-timeout') return `no sign of life for ${keepalive} s`
  // a server that is killed while it has unread data resets the connection
  if (!error || hangUps.includes(String(error.code))) return 'the other side closed the connection'
  return `the connection broke (${error.message})`
}
